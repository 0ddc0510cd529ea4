"""Bodies of a wanted size, cut from the real chat text that the package ships."""

import gzip
import itertools
import json
from importlib.resources import files

SAMPLE = gzip.decompress(files("trunkline.replay").joinpath("sample.jsonl.gz").read_bytes())


def bodies(size: int) -> list[str]:
    """Some hundred different bodies of so many characters."""
    text = " ".join(json.loads(line)["text"] for line in SAMPLE.splitlines())
    return [text[at : at + size] for at in itertools.islice(range(0, len(text) - size, size), 500)]
