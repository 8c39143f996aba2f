"""What `make run` runs: live where there is a key, else the sandbox, and it says which."""

import os
import sys

from llmr import config as configuration
from llmr.cli.app import main
from llmr.errors import ConfigError


def arguments(environ: dict[str, str] | None = None) -> list[str]:
    """The arguments of `llmr` that fit what is there."""
    try:
        loaded = configuration.load(environ=environ)
    except ConfigError:
        return ["serve"]  # which says what is wrong with it
    keyed = any(u is not None and u.api_key != "" for u in loaded.upstreams.values())
    return ["serve"] if keyed else ["serve", "--sandbox"]


if __name__ == "__main__":
    found = arguments()
    if "--sandbox" in found:
        print("OPENROUTER_API_KEY is not set: serving the sandbox.", file=sys.stderr)
    sys.argv = [os.path.basename(sys.argv[0]).replace("run.py", "llmr"), *found]
    main()
