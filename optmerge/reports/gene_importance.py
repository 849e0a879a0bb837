"""Which genes decided how well a trial did."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from optmerge.phrases import listed, plural
from optmerge.reports.drawing import Drawing
from optmerge.reports.style import DARK, FAINT, GOLD, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST = 20  # complete trials: of a tenth of them, the best, something must be known
_TOP = 20
_GENES, _DRAWS = 40, 120  # at most so many genes, and so many draws of them, say what chance alone gives


@dataclass(frozen=True)
class Importance:
    """How much genes matter.

    Attributes:
        genes: Gene to its share of the importance of all, the greatest first.
        chance: What one gene in twenty reaches where scores have nothing to do with genes.
        trials: How many trials it was taken from.
    """

    genes: Mapping[str, float]
    chance: float
    trials: int

    def above_chance(self) -> list[str]:
        return [gene for gene, share in self.genes.items() if share > self.chance]


def importance_of_genes(complete: Sequence[tuple[FrozenTrial, float]], sign: float) -> Importance | None:
    """PED-ANOVA (Watanabe et al., 2023): how far a gene's values in the best tenth of trials are from those in all.

    It takes seconds for 400 genes and 1000 trials; fANOVA takes twice as long with a quarter of its trees. What chance
    gives is found by handing the scores round at random.

    Args:
        complete: The trials that ran to the end, with their score.
        sign: What turns scores so that higher is better.

    Returns:
        Nothing if there are too few trials, or they are all as good.
    """
    if len(complete) < LEAST or len({value for _, value in complete}) < 2:
        return None
    study = _frozen(complete, sign)
    found = _evaluated(study)
    total = sum(found.values())
    if not found or total <= 0:
        return None
    return Importance(
        {gene: value / total for gene, value in found.items()}, _by_chance(study, list(found)) / total, len(complete)
    )


def _frozen(complete: Sequence[tuple[FrozenTrial, float]], sign: float) -> optuna.Study:
    """A study of these trials alone, numbered anew: the one that they are of may still go on."""
    study = optuna.create_study(storage=optuna.storages.InMemoryStorage())  # lower is better
    study.add_trials(
        optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=-sign * value)
        for trial, value in complete
    )
    return study


def _by_chance(study: optuna.Study, genes: Sequence[str]) -> float:
    """The 95th percentile over genes of what they reach where scores are handed round at random."""
    rng = np.random.default_rng(0)
    few = [genes[i] for i in rng.permutation(len(genes))[:_GENES]]
    reached: list[float] = []
    while len(reached) < _DRAWS:
        drawn = rng.permutation(len(study.get_trials(deepcopy=False)))
        reached += _evaluated(study, few, _handed_round(drawn)).values()
    return float(np.percentile(reached, 95))


def _handed_round(drawn: NDArray[np.int64]) -> Callable[[FrozenTrial], float]:
    return lambda trial: float(drawn[trial.number])


def _evaluated(
    study: optuna.Study,
    genes: list[str] | None = None,
    target: Callable[[FrozenTrial], float] | None = None,
) -> dict[str, float]:
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():  # that it is new not to normalise, and that low targets count as good
        warnings.simplefilter("ignore")
        found: dict[str, float] = get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(), params=genes, target=target, normalize=False
        )
    return found


def draw_importance(found: Importance) -> Drawing:
    """Draw the most important genes, and their sums by group, source and parameter.

    Args:
        found: How much they matter.
    """
    from matplotlib.figure import Figure

    top = list(found.genes.items())[:_TOP]
    sums = {what: by for what, by in summed(found.genes).items() if 1 < len(by) < len(found.genes)}
    figure = Figure(figsize=(WIDTH, max(3.0, 1.0 + 0.23 * len(top))), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(3, 2)) if sums else None
    left = (parts[0] if parts is not None else figure).add_subplot()
    _bars(left, dict(top), DARK)
    left.axvline(found.chance, color="black", linestyle="--", linewidth=1)
    left.annotate(
        "chance",
        (found.chance, 1.0),
        xycoords=("data", "axes fraction"),
        ha="left",
        va="bottom",
        fontsize=9,
        rotation=0,
    )
    left.set_xlabel("share of the importance of all genes")
    if parts is not None:
        panels = parts[1].subplots(
            len(sums), 1, squeeze=False, height_ratios=[min(len(by), 10) + 1 for by in sums.values()]
        )
        for axes, (what, by) in zip(panels[:, 0], sums.items(), strict=True):
            _bars(axes, dict(list(by.items())[:10]), GOLD)
            axes.set_title(f"by {what}" + (f", top 10 of {len(by)}" if len(by) > 10 else ""))
    return Drawing("importance", "Which genes mattered", _alt(found, sums), _caption(found), figure)


def summed(genes: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Sums by the parts of the genes' names, the greatest first: group, source and parameter of merges.

    Genes of paths are named by repeat, layer and what they are: `r0/ja.03/scale`.
    """
    sums: dict[str, dict[str, float]] = {"group": {}, "source": {}, "parameter": {}}
    for gene, share in genes.items():
        parts = gene.split("/")
        if len(parts) < 2:
            continue
        source = parts[1] if len(parts) == 3 else None
        if source is not None and parts[0][:1] == "r" and parts[0][1:].isdigit():  # a slot of a path
            source = source.rpartition(".")[0] or source
        for what, key in (("group", parts[0]), ("source", source), ("parameter", parts[-1])):
            if key is not None:
                sums[what][key] = sums[what].get(key, 0.0) + share
    return {what: dict(sorted(by.items(), key=lambda pair: -pair[1])) for what, by in sums.items() if by}


def _bars(axes: "Axes", shares: Mapping[str, float], fill: str) -> None:
    names = list(shares)
    axes.barh(range(len(names)), list(shares.values()), color=fill, edgecolor="0.25", linewidth=0.5)
    axes.set_yticks(range(len(names)), names, fontsize=8.5)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    axes.grid(axis="x", color=FAINT, linewidth=0.4)
    axes.margins(y=0.02)


def _alt(found: Importance, sums: Mapping[str, Mapping[str, float]]) -> str:
    top = [f"{gene} {share:.1%}" for gene, share in list(found.genes.items())[:5]]
    above = len(found.above_chance())
    text = (
        f"Bars: of {plural(len(found.genes), 'gene')}, by {found.trials} complete trials, the most important are "
        f"{listed(top)} of all importance; {above} are above what chance gives to one in twenty."
    )
    for what, by in sums.items():
        text += f" By {what}: {listed([f'{name} {share:.0%}' for name, share in list(by.items())[:4]])}."
    return text


def _caption(found: Importance) -> str:
    few = " With fewer than 50 complete trials this is a first impression." if found.trials < 50 else ""
    return (
        "PED-ANOVA over the complete trials: how far the values of a gene in the best tenth of them are from its "
        "values in all. The dashed line is what one gene in twenty reaches if scores are handed round at random. A "
        "gene that only drifted along while the search went on may look important, and one that acts together with "
        f"others unimportant.{few}"
    )
