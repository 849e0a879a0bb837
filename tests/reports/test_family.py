"""What is told of a recipe, generation by generation."""

from optmerge.recipe import CheckpointNode, Group, Hop, MergeNode, PathNode, Recipe
from optmerge.reports.family import family, hops_in_words, parameters_in_words

BASE = CheckpointNode("org/base", "b" * 64, revision="main")
JA = CheckpointNode("org/ja", "a" * 64, licence="mit")
LORA = CheckpointNode("org/lora", "c" * 64, over=BASE)
GROUPS = {
    "first": Group(("model.layers.0.*",), {"ja": {"weight": 0.25}, "math": {"weight": 1.0}}, {"t": 0.5}),
    "last": Group(("model.layers.1.*",), {"ja": {"weight": 0.75}}, {"t": 0.5}),
    "head": Group(("lm_head.*",), source="ja"),
}
MERGE = MergeNode("ties", {"base": BASE, "ja": JA, "math": LORA}, "base", "ja", "bfloat16", GROUPS)
HOPS = (Hop("evolved", 0), Hop("evolved", 1), Hop("ja", 1, 0.5), Hop("ja", 2, 0.5), Hop("evolved", 2, 1.25))
PATH = PathNode({"evolved": MERGE, "ja": JA}, HOPS, "ja", "evolved", "evolved", "float32")


def test_path_is_told_in_runs_of_layers() -> None:
    assert hops_in_words(HOPS) == "evolved 0 to 1, ja 1 to 2 (x 0.5), evolved 2 (x 1.25)"
    assert hops_in_words([Hop("a", 3), Hop("a", 4, 1.5), Hop("a", 4), Hop("b", 5)]) == "a 3 to 4 (x 1, 1.5), a 4, b 5"


def test_hybrid_is_told_down_to_the_checkpoints() -> None:
    root = family(Recipe(PATH, "d" * 64))["root"]
    assert (root["kind"], len(root["hops"])) == ("path", 5)
    evolved, ja = root["sources"]
    assert (evolved["alias"], evolved["hops"], evolved["roles"]) == ("evolved", 3, ["embeddings", "head"])
    assert (ja["kind"], ja["location"], ja["licence"], ja["roles"]) == ("checkpoint", "org/ja", "mit", ["tokenizer"])
    base, inner, math = evolved["sources"]
    assert (base["roles"], inner["roles"]) == (["base"], ["tokenizer"])
    assert evolved["taken"] == {"head": "ja"} and evolved["groups"] == 3
    assert inner["parameters"]["weight"] == {"low": 0.25, "mean": 0.5, "high": 0.75, "groups": 2}
    assert parameters_in_words(inner["parameters"]) == "weight 0.25 to 0.75"
    assert parameters_in_words(evolved["shared"]) == "t 0.5"
    assert (math["kind"], math["over"]["location"]) == ("adapter", "org/base")
