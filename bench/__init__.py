"""What a decision and a request cost here: `python -m bench`, described in bench/README.md."""
