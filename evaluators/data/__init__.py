"""Reads files and Hub data sets as encoded examples."""
