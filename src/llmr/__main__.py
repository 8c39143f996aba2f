"""`python -m llmr` is `llmr`."""

from llmr.cli.app import main

if __name__ == "__main__":
    main()
