"""`python -m pinglow`: the command, where it is not on the path."""

from pinglow.cli.main import app

if __name__ == "__main__":
    app(prog_name="python -m pinglow")
