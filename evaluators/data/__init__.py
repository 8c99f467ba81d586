"""From files and Hub data sets to encoded examples."""
