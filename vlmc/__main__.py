"""`python -m vlmc`."""

from vlmc.cli import main

if __name__ == "__main__":
    main()
