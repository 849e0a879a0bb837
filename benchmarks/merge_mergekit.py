"""mergekit's merge methods on tensors in memory: timed, or their results written; benchmarks/merge.py runs this.

    python benchmarks/merge_mergekit.py '{"base": "FOLDER", "one": "FOLDER", ...}'

Runs in mergekit's environment, on one thread. Every line of the standard input is a request in JSON, such as

    {"what": "measure", "method": "ties", "models": ["base", "one"], "base": true, "parameters": [{"weight": [0.5]}]}

and every line of the standard output is its answer.
"""

import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mergekit import merge_methods
from mergekit.merge_methods.api import merge_tensors
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

Models = Mapping[str, Mapping[str, Tensor]]
Request = Mapping[str, Any]


def load(folder: Path) -> dict[str, Tensor]:
    """A model's tensors, mapped from its file, all pages read."""
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    for tensor in tensors.values():
        torch.aminmax(tensor)
    return tensors


def merge(
    request: Request, models: Models, name: str, parameters: Mapping[str, Any], dtype: torch.dtype | None = None
) -> Tensor:
    """One tensor, computed in the type that the sources have unless told otherwise."""
    known = {parameter.name for parameter in merge_methods.get(request["method"]).spec.parameters}
    return merge_tensors(
        [models[alias][name] for alias in request["models"]],
        request["method"],
        parameters={key: value for key, value in parameters.items() if key in known},
        base_index=0 if request["base"] else None,
        name=name,
        dtype=dtype,
    )


def seconds(request: Request, models: Models, names: Sequence[str], parameters: Mapping[str, Any]) -> dict[str, float]:
    """Seconds that each of some tensors takes; the results are dropped one by one."""
    found = {}
    for name in names:
        start = time.perf_counter()
        merge(request, models, name, parameters)
        found[name] = time.perf_counter() - start
    return found


def measure(request: Request, models: Models) -> dict[str, Any]:
    """Seconds for a whole model: the median, or an estimate from one tensor of each shape if a model takes long."""
    tensors = models[request["models"][0]]
    shape_of = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    counts = Counter(shape_of.values())
    names = list({shape: name for name, shape in shape_of.items()}.values())
    first, *rest = request["parameters"]
    parts = seconds(request, models, names, first)
    estimate = sum(counts[shape_of[name]] * taken for name, taken in parts.items())
    if estimate > request["limit"]:
        return {"seconds": estimate, "repetitions": 1, "whole": False}
    found = [sum(seconds(request, models, list(tensors), parameters).values()) for parameters in rest]
    return {"seconds": statistics.median(found), "repetitions": len(found), "whole": True}


def check(request: Request, models: Models) -> dict[str, Any]:
    """Merge the few tensors of a file, which holds MODEL/TENSOR, in float64, and write the results."""
    del models
    loaded = load_file(request["tensors"])
    few: dict[str, dict[str, Tensor]] = {}
    for key, tensor in loaded.items():
        alias, _, name = key.partition("/")
        few.setdefault(alias, {})[name] = tensor
    names = few[request["models"][0]]
    merged = {name: merge(request, few, name, request["parameters"], torch.float64) for name in names}
    save_file({name: tensor.float().contiguous() for name, tensor in merged.items()}, request["out"])
    spec = merge_methods.get(request["method"]).spec
    return {"parameters": [parameter.name for parameter in spec.parameters]}


def main() -> None:
    """Answer requests until there are no more."""
    out, sys.stdout = sys.stdout, sys.stderr  # nothing but answers on the standard output
    torch.set_num_threads(1)
    models = {alias: load(Path(folder)) for alias, folder in json.loads(sys.argv[1]).items()}
    answers = {"measure": measure, "check": check}
    with torch.no_grad():
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = answers[request["what"]](request, models)
            except Exception as error:  # whatever a method cannot do, the others are still to be measured
                answer = {"error": f"{request['method']}: {error}"}
            print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
