"""`python -m medil` is the command `medil`."""

from medil.cli import main

if __name__ == "__main__":
    main()
