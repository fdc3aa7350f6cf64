"""`python -m pinglow`: the command, where it is not on the path."""

from pinglow.cli.main import main

if __name__ == "__main__":
    main("python -m pinglow")
