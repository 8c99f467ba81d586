"""What every measurement needs: values with their intervals, targets, progress."""
