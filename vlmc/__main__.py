"""`python -m vlmc`."""

from vlmc.cli.main import main

if __name__ == "__main__":
    main()
