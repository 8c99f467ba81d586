"""`python -m paretoformer`: the command line, if the script is not on the PATH."""

from paretoformer.search.cli import main

if __name__ == "__main__":
    main()
