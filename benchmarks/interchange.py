"""Import and export of mergekit configurations, held against mergekit itself.

    python -m venv mergekit-env && mergekit-env/bin/pip install -r benchmarks/requirements-mergekit.txt
    MERGEKIT=mergekit-env/bin python benchmarks/interchange.py [NAME ...]

Runs each configuration in benchmarks/interchange/ on tiny models made on the spot three times: through mergekit-yaml,
through import and rebuild, and through import, export and mergekit-yaml. All tensors of the second and third are
compared with those of the first, and what does not agree makes it fail. Then paths over layers, folded by us and by
mergekit's passthrough. A few minutes on two cores.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from optmerge.__main__ import run
from optmerge.models import Checkpoint, scan
from optmerge.recipe import CheckpointNode, Hop, PathNode, Recipe

CONFIGURATIONS = Path(__file__).parent / "interchange"
PLACEHOLDER = "MODELS"
WORDS = ["<unk>", "<s>", "</s>", *(f"word{i}" for i in range(93))]
SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 6, "num_attention_heads": 4}
RELATIVE, ABSOLUTE = 1e-5, 1e-6
# Share of entries that may differ: mergekit sums the importance of entries in float32, of terms that nearly cancel, and
# entries next to the threshold fall on either side of it.
MAY_DIFFER = {"arcee_fusion": 1e-3}


def make_models(folder: Path) -> None:
    """Write a random model called base, and three that differ from it by noise."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    config = LlamaConfig(**SIZES, num_key_value_heads=2, vocab_size=len(WORDS), tie_word_embeddings=False)
    torch.manual_seed(0)
    base = LlamaForCausalLM(config).state_dict()
    for seed, name in enumerate(("base", "alpha", "beta", "gamma")):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        noise = 0.0 if name == "base" else 0.02
        model.load_state_dict({key: value + noise * torch.randn_like(value) for key, value in base.items()})
        model.save_pretrained(folder / name)
        fast.save_pretrained(folder / name)


def with_mergekit(configuration: Path, out: Path) -> dict[str, Tensor]:
    """The tensors that mergekit-yaml makes of a configuration."""
    program = Path(os.environ.get("MERGEKIT", "mergekit-env/bin")) / "mergekit-yaml"
    command = [str(program), str(configuration), str(out), "--quiet", "--no-write-model-card"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{configuration.name}: mergekit-yaml fails: {done.stderr.strip().splitlines()[-1]}")
    return tensors_of(out)


def with_ours(*arguments: str) -> None:
    """Run a command of ours, whose lines are of no interest here."""
    with redirect_stdout(StringIO()):
        if run(list(arguments)):
            sys.exit(f"fails: python -m optmerge {' '.join(arguments)}")


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, which has as many layers as its config.json says."""
    found = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    layers = json.loads((folder / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    assert {int(name.split(".")[2]) for name in found if ".layers." in name} == set(range(layers))
    return found


def farthest(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], may_differ: float) -> tuple[float, float]:
    """The largest difference of those entries that are near, and the share of those that are not.

    Nothing is counted as far if that share is no more than may differ.
    """
    assert set(ours) == set(theirs), set(ours) ^ set(theirs)
    assert all(ours[name].dtype == theirs[name].dtype for name in ours)
    pairs = [(ours[name].double(), theirs[name].double()) for name in ours]
    # Where both round to fewer bits, what is just above the middle for one may be just below it for the other.
    relative = max(RELATIVE, max(torch.finfo(tensor.dtype).eps for tensor in ours.values()))
    near = [torch.isclose(a, b, rtol=relative, atol=ABSOLUTE) for a, b in pairs]
    far = 1 - sum(int(close.sum()) for close in near) / sum(close.numel() for close in near)
    if far > may_differ:
        return max((a - b).abs().max().item() for a, b in pairs), far
    return max((a - b).abs()[close].max().item() for (a, b), close in zip(pairs, near, strict=True)), far


def path_over(models: Path, target: str) -> Recipe:
    """A path of eleven hops over three of the models, with a scale at every hop."""
    sources = {
        alias: CheckpointNode(str(models / alias), scan(Checkpoint.open(models / alias, alias)).weights_sha256)
        for alias in ("alpha", "beta", "gamma")
    }
    rng = random.Random(0)
    between = [Hop(rng.choice(sorted(sources)), rng.randrange(6), rng.uniform(0.5, 1.5)) for _ in range(9)]
    hops = (Hop("alpha", 0, 1.25), *between, Hop("beta", 5, 0.8))
    return Recipe(PathNode(sources, hops, "alpha", "alpha", "beta", "float32", target))


def compare_paths(work: Path) -> list[str]:
    """Hold the folded models of paths against what mergekit-yaml makes of them, and name those that differ."""
    print("\n| path, what its scales multiply | tensors | export as mergekit, mergekit-yaml |\n|---|---|---|")
    failed = []
    for target in ("hidden", "branch"):
        recipe, here = work / f"{target}.recipe.yaml", work / target
        path_over(work / "models", target).save(recipe)
        with_ours("export", str(recipe), str(here / "folded"), "format=fold")
        with_ours("export", str(recipe), str(here / "exported"), "format=mergekit")
        theirs = with_mergekit(here / "exported" / "mergekit.yaml", here / "theirs")
        most, share = farthest(tensors_of(here / "folded"), theirs, 0.0)
        print(f"| {target} | {len(theirs)} | {most:.1e} |", flush=True)
        failed += [target] * (share > 0)
    return failed


def main() -> None:
    """Compare, and print a table."""
    logging.disable_progress_bar()
    chosen = sys.argv[1:] or sorted(path.stem for path in CONFIGURATIONS.glob("*.yaml"))
    print("Largest difference from what mergekit-yaml makes of the configuration:")
    print("| configuration | method | tensors | import, rebuild | import, export, mergekit-yaml |")
    print("|---|---|---|---|---|")
    failed = []
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        make_models(work / "models")
        for name in chosen:
            text = (CONFIGURATIONS / f"{name}.yaml").read_text(encoding="utf-8")
            configuration, recipe = work / f"{name}.yaml", work / f"{name}.recipe.yaml"
            configuration.write_text(text.replace(PLACEHOLDER, str(work / "models")), encoding="utf-8")
            theirs = with_mergekit(configuration, work / name / "theirs")
            with_ours("import", str(configuration), str(recipe))
            with_ours("rebuild", str(recipe), str(work / name / "ours"))
            with_ours("export", str(recipe), str(work / name / "exported"), "format=mergekit")
            again = with_mergekit(work / name / "exported" / "mergekit.yaml", work / name / "again")
            allowed = MAY_DIFFER.get(name, 0.0)
            results = [farthest(found, theirs, allowed) for found in (tensors_of(work / name / "ours"), again)]
            cells = [f"{most:.1e}" + (f" ({share:.2%} of entries differ)" if share else "") for most, share in results]
            method = text.partition("merge_method: ")[2].partition("\n")[0]
            print(f"| {name} | {method} | {len(theirs)} | {' | '.join(cells)} |", flush=True)
            failed += [name] * any(share > allowed for _, share in results)
        if not sys.argv[1:]:
            failed += compare_paths(work)
    if failed:
        sys.exit(f"farther from mergekit than {RELATIVE:g} relative, {ABSOLUTE:g} absolute: {', '.join(failed)}")


if __name__ == "__main__":
    main()
