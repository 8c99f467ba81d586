"""`python -m paretoformer`: the commands, where the script is not on the PATH."""

from paretoformer.search.cli import main

if __name__ == "__main__":
    main()
