"""Publishing: from records to the answer; choose, confirm, front, best, load, export, verify."""
