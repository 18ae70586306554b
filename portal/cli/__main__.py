"""`python -m portal.cli`: the same as `airelays`, where that is not installed."""

from portal.cli.main import main

if __name__ == "__main__":
    main()
