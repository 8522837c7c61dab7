"""`python -m mlplatform.cli`: the command, where it is not on the path."""

from mlplatform.cli.app import main

if __name__ == "__main__":
    main()
