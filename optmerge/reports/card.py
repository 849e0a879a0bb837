"""The model card of a merge: metadata as the hub wants it, and what people should know before they use it."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optmerge.models.form import Form
from optmerge.models.licence_rules import RULES
from optmerge.models.licences import Combined, declared
from optmerge.phrases import listed, shown_seconds
from optmerge.recipe import (
    RECIPE,
    UNION,
    CheckpointNode,
    MergeNode,
    Node,
    PathNode,
    Recipe,
    portable_location,
)
from optmerge.reports.family import family, hops_in_words, parameters_in_words
from optmerge.reports.table import goal_of, models_on_test, told_from_rivals, winner_name

_OF_RESULTS, _OF_RECIPE = ("test.png", "progress.png", "front.png"), ("parameters.png", "path.png")
PICTURES = (*_OF_RESULTS, *_OF_RECIPE)
"""Files of a report that a card shows where they lie beside it."""

PAPER = "https://arxiv.org/abs/2403.13187"
_TAGS = {"gguf": ("gguf", "llama-cpp"), "int8": ("torchao",)}  # of forms
_RESULTS = "## Results"
_SIGNED = re.compile(r"<!-- as optmerge wrote it: sha256 ([0-9a-f]{64}) -->\s*\Z")
_HELD, _BELOW = "Loaded and held against the model, ", " All below is of the model as it was before."
_METRICS = {"acc": "accuracy", "acc_ja": "accuracy", "acc_norm": "accuracy", "rougeL": "rouge"}  # as the hub calls them


def model_card(
    recipe: Recipe,
    licence: Combined,
    *,
    name: str,
    result: Mapping[str, Any] | None = None,
    pictures: Mapping[str, str] | None = None,
    form: Form | None = None,
) -> str:
    """A model card, as README.md.

    No folder of this machine is named in it: a source that is not from the hub is called by its alias. Its last line,
    which is not shown, is by what `is_as_written` knows it again.

    Args:
        recipe: The model.
        licence: What it is under.
        name: What it is called.
        result: The result.json of the search that found it; without one nothing is said of scores.
        pictures: Files of `PICTURES` that lie beside it, and what each shows.
        form: In what form its weights lie beside it, if they are no ordinary checkpoint. The hub, which reads no words,
            is then told no scores: they are of the model as it was.
    """
    from huggingface_hub import ModelCard, ModelCardData

    results = _eval_results(result) if result and form is None else None
    # The hub takes these for repositories: a name that a source has here alone might be somebody else's there.
    on_hub = [called for called in _base_models(recipe.root) if "/" in called]
    under = licence_metadata(licence)
    data = ModelCardData(
        license=under["license"],
        license_name=under.get("license_name"),
        license_link=under.get("license_link"),
        language=list((result or {}).get("languages") or ()) or None,
        library_name="gguf" if form and form.name == "gguf" else "transformers",
        pipeline_tag="text-generation",
        base_model=on_hub or None,
        base_model_relation="merge" if on_hub else None,
        tags=["merge", "optmerge", _method(recipe), *(_TAGS[form.name] if form else ())],
        datasets=None,
        model_name=name if results else None,
        eval_results=results,
    )
    sections = [
        f"# {name} ({form.title})\n\n{_note(form)}" if form else f"# {name}",
        _what(recipe, licence, name, result),
        *([_results(result) + _shown(pictures or {}, _OF_RESULTS)] if result else []),
        *([_how_found(result)] if result else []),
        _recipe(recipe) + _shown(pictures or {}, _OF_RECIPE),
        _limits(recipe, result),
        _licence(licence),
        _usage(name, form),
    ]
    text = "\n\n".join(sections)
    return _signed(str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n\n")))


def _signed(text: str) -> str:
    return f"{text}<!-- as optmerge wrote it: sha256 {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def is_as_written(card: str) -> bool:
    """Whether a card is one of ours, in which nobody has changed anything."""
    signed = _SIGNED.search(card)
    return signed is not None and hashlib.sha256(card[: signed.start()].encode()).hexdigest() == signed[1]


def tells_results(card: str) -> bool:
    """Whether a card of ours says what the model scored."""
    return f"\n{_RESULTS}\n" in card


def likeness_in(card: str) -> str:
    """What a card of ours says of how a model in another form was held against it; empty if nothing."""
    found = re.search(rf"^> .*{re.escape(_HELD)}(.*)\.{re.escape(_BELOW)}$", card, re.MULTILINE)
    return found[1] if found else ""


def form_in(card: str) -> Form | None:
    """In what form a card of ours says that its model is; None for an ordinary checkpoint."""
    found = re.search(r"^# .* \((?:(GGUF)(?:, (\w+))?|int8, torchao)\)$", card, re.MULTILINE)
    if found is None:
        return None
    return Form("gguf", found[2] or "") if found[1] else Form("int8")


def licence_metadata(licence: Combined) -> dict[str, str]:
    """What the hub's metadata say of a licence."""
    if licence.id != "other":
        return {"license": licence.id}
    link = {} if licence.url is None else {"license_link": licence.url}
    return {"license": licence.id, "license_name": licence.name, **link}


def _note(form: Form) -> str:
    if form.name == "gguf":
        one = len(form.files) == 1
        kind = f", {'its' if one else 'their'} matrices in {form.kind}" if form.kind else ""
        files = listed([f"`{file}`" for file in form.files])
        what = f"{files} {'is a GGUF file' if one else 'are GGUF files'} for llama.cpp{kind}."
    else:
        what = "Its linear layers have 8 bits an entry, by torchao."
    held = f" {_HELD}{form.likeness}." if form.likeness else ""
    return f"> **In another form.** {what}{held}{_BELOW}"


def _eval_results(result: Mapping[str, Any]) -> list[Any]:
    from huggingface_hub import EvalResult

    goal, task = goal_of(result), result["task"]
    data = (result.get("data") or {}).get("test") or {}
    means = {goal.name: result["winner"]["test"]["score"], **_other_means(result)}
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=data.get("hub") or task["name"],
            dataset_name=f"{data['hub']} {data.get('file') or ''}".strip()
            if data
            else f"{task['name']} (own problems)",
            dataset_config=data.get("config"),
            dataset_split=data.get("split") or "test",
            metric_type=_METRICS.get(metric, metric),
            metric_name=metric,
            metric_value=round(value, 4),
            verified=False,
        )
        for metric, value in means.items()
    ]


def _other_means(result: Mapping[str, Any]) -> dict[str, float]:
    goal = result["objective"]["name"]
    return {name: mean for name, mean in result["winner"].get("means", {}).items() if name not in (goal, "ease")}


def _method(recipe: Recipe) -> str:
    return recipe.root.method if isinstance(recipe.root, MergeNode) else "data-flow"


def _leaves(node: Node, alias: str = "") -> Iterator[tuple[str, CheckpointNode]]:
    if isinstance(node, CheckpointNode):
        yield alias, node
        if node.over is not None:
            yield f"{alias}.over", node.over
    else:
        for name, source in sorted(node.sources.items()):
            yield from _leaves(source, name)


def _called(alias: str, node: CheckpointNode) -> str:
    """A source's hub id, or its alias where it lies in a folder."""
    place = portable_location(node.location)
    return alias if place.startswith("./") else place


def _base_models(root: Node) -> list[str]:
    return list(dict.fromkeys(_called(alias, leaf) for alias, leaf in _leaves(root)))


def _linked(name: str) -> str:
    return f"[{name}](https://huggingface.co/{name})" if "/" in name else name


def _what(recipe: Recipe, licence: Combined, name: str, result: Mapping[str, Any] | None) -> str:
    sources = [_linked(one) for one in _base_models(recipe.root)]
    kind = "a merge" if isinstance(recipe.root, MergeNode) else "a path over the layers"
    goal = ""
    if result:
        objective, task, test = goal_of(result), result["task"]["name"], result["winner"]["test"]
        goal = f" It was searched for `{objective.name}` on {task}, and reaches {objective.shown(test['score'])} there."
    notices = "".join(f"\n\n> {notice}" for notice in licence.notices)
    made = f"Nothing was trained: its weights follow from theirs by [{RECIPE}]({RECIPE})"
    how = f", which optmerge found by evolution ([Akiba et al., 2025]({PAPER}))" if result else ", with optmerge"
    return f"{name} is {kind} of {listed(sources)}. {made}{how}.{goal}{notices}"


def _results(result: Mapping[str, Any]) -> str:
    goal, winner = goal_of(result), result["winner"]
    rows = [(f"source {alias}", entry["test"]) for alias, entry in result["sources"].items()]
    for name, entry in result.get("baselines", {}).items():
        rows.append((f"{name} ({entry['setting']})" if entry["setting"] else name, entry["test"]))
    rows.append((f"**{winner_name(result)}**", winner["test"]))
    rows += [(f"the same, {name}", entry["test"]) for name, entry in result.get("ablations", {}).items()]
    table = "\n".join(
        f"| {label} | {goal.shown(test['score'])} | {goal.shown(test['low'])} to {goal.shown(test['high'])} |"
        for label, test in rows
    )
    less = "" if goal.direction == "maximize" else " (less is better)"
    others = "".join(f" Its `{name}` is {mean:.4g}." for name, mean in _other_means(result).items())
    return (
        f"{_RESULTS}\n\n`{goal.name}`{less} on the test problems of {result['task']['name']}, which nothing was chosen "
        f"by:\n\n| model | score | 95% interval |\n|---|---|---|\n{table}\n\n{_chosen(result)}{others}"
    )


def _chosen(result: Mapping[str, Any]) -> str:
    goal, winner = goal_of(result), result["winner"]
    validation = "" if winner["validation"] is None else f" and {goal.shown(winner['validation'])} on validation"
    text = (
        f"It scored {goal.shown(winner['search'])} in the search{validation}; the best of many is partly lucky, "
        f"and the score on test is the one to believe.{models_on_test(result)}"
    )
    if "front" in result:
        names = listed([f"`{one['name']}`" for one in result["objectives"]])
        text += (
            f" It was searched for {names} at once: of {len(result['front'])} compromises between them this one has "
            f"the best {goal.name}, which weighs them."
        )
    text += told_from_rivals(result)
    for guard, below in winner.get("broken", {}).items():
        text += f" It fails its guard {guard} by {below:.4g}."
    return text


def _how_found(result: Mapping[str, Any]) -> str:
    trials, search = result["trials"], result.get("search") or {}
    count = trials["complete"] + trials["pruned"]
    sampler = f" by {search['sampler']}, seed {search['seed']}" if search else ""
    each = f", each on up to {search['problems']} problems" if search else ""
    version = f"; optmerge {result['optmerge']}" if "optmerge" in result else ""
    finalists = (result["winner"].get("selection") or {}).get("finalists")
    chosen = f" {finalists} finalists raced on validation problems." if finalists else ""
    return (
        f"## How it was found\n\nStudy `{result['study']}`: {count} trials{sampler}{each}, {trials['pruned']} of them "
        f"stopped early; {result['problem_evaluations']} answers in {shown_seconds(result['seconds'])}{version}."
        f"{chosen}"
    )


def _recipe(recipe: Recipe) -> str:
    root = recipe.root
    tree = family(recipe.portable())["root"]
    if isinstance(root, PathNode):
        head = f"A path of {len(root.hops)} hops, counted from layer 0: {hops_in_words(root.hops)}. "
        scales = "Scales are folded into the weights. " if any(hop.scale != 1 for hop in root.hops) else ""
        head += f"{scales}Stored as {root.dtype}."
    else:
        shared = f" Shared by all sources: {parameters_in_words(tree['shared'])}." if tree["shared"] else ""
        head = (
            f"Merged by `{root.method}`, tensors in {tree['groups']} groups with parameters of their own; stored as "
            f"{root.dtype}.{shared}"
        )
        if root.tokenizer == UNION:
            head += " The vocabulary is that of all sources together."
    rows = "\n".join(_rows(root, tree, ""))
    heading = "| source | what it is | weights (sha256) | licence | its part |\n|---|---|---|---|---|"
    where = f"[{RECIPE}]({RECIPE}) has all values; it is also in the metadata of the weights."
    return f"## Recipe\n\n{head}\n\n{heading}\n{rows}\n\n{where}"


def _shown(pictures: Mapping[str, str], files: Sequence[str]) -> str:
    # Brackets would end the words of a picture.
    words = {file: pictures[file].translate({ord("["): "(", ord("]"): ")"}) for file in files if file in pictures}
    return "".join(f"\n\n![{shown}]({file})" for file, shown in words.items())


def _rows(node: MergeNode | PathNode, tree: Mapping[str, Any], above: str) -> Iterator[str]:
    for entry in tree["sources"]:
        alias = f"{above}{entry['alias']}"
        source = node.sources[entry["alias"]]
        roles = list(entry["roles"])
        if entry.get("parameters"):
            roles.append(parameters_in_words(entry["parameters"]))
        if "hops" in entry and isinstance(entry["hops"], int):
            roles.append(f"{entry['hops']} hops")
        part = "; ".join(roles)
        if isinstance(source, CheckpointNode):
            revision = f" at {source.revision[:12]}" if source.revision else ""
            what = f"{_linked(_called(entry['alias'], source))}{revision}"
            if source.over is not None:
                what += f", an adapter over {_linked(_called(f'{alias}.over', source.over))}"
            yield f"| {alias} | {what} | `{source.weights_sha256[:12]}` | {source.licence or 'unknown'} | {part} |"
        else:
            how = f"a merge by `{source.method}`" if isinstance(source, MergeNode) else "a path over layers"
            yield f"| {alias} | {how} of the sources below it | | | {part} |"
            yield from _rows(source, entry, f"{alias} / ")


def _limits(recipe: Recipe, result: Mapping[str, Any] | None) -> str:
    sources = listed([_linked(one) for one in _base_models(recipe.root)])
    measured = (
        f"It was chosen by its answers to {result['task']['name']} alone, and nothing else was measured"
        if result
        else "Nothing is said here of what it can do, as nothing was measured"
    )
    if result and result.get("search_on_public_test"):
        measured += ", and it was chosen on problems of a public test set, on which it cannot be compared with others"
    return (
        f"## Limits\n\nWhat {sources} get wrong, it may get wrong too: errors, biases and gaps in knowledge are "
        "inherited, and what their cards say of intended use holds here. Merging may also undo what they were trained "
        f"for, such as refusals and formats of chat. {measured}: test it on your own task before you rely on it."
    )


def _licence(licence: Combined) -> str:
    named = [RULES[name] for name in declared(licence.name, "").ids if name in RULES]
    if licence.url:
        texts = f" ([text]({licence.url}))"
    else:  # that of each, where the terms of several apply
        texts = f" (texts: {', '.join(f'[{rule.name}]({rule.url})' for rule in named)})" if named else ""
    lines = [f"## Licence\n\n**{licence.name}**{texts}"]
    if licence.commercial is False:
        lines[0] += ": no commercial use"
    if licence.reasons:
        lines.append("\n".join(f"- {reason}" for reason in licence.reasons))
    if licence.duties:
        lines.append("Who passes it on must:\n\n" + "\n".join(f"- {duty}" for duty in licence.duties))
    lines.append("These lines were put together by rules, from what the sources' cards say. They are no legal advice.")
    return "\n\n".join(lines)


def _usage(name: str, form: Form | None) -> str:
    before = " of the model as it was before" if form else ""
    return (
        f"## Use it, and make it again\n\n{_loading(name, form)}\n\n"
        "```console\n"
        f"$ python -m optmerge show {RECIPE}              # its family tree\n"
        f"$ python -m optmerge rebuild --check {RECIPE}   # the same weights{before}, proven by hash\n"
        f"$ python -m optmerge rebuild {RECIPE} OUT sources.ALIAS=FOLDER\n```"
    )


def _loading(name: str, form: Form | None) -> str:
    if form and form.name == "gguf":
        file = form.files[0]
        on_hub = "/" in name
        how = f'Llama.from_pretrained("{name}", "{file}")' if on_hub else f'Llama("{file}")  # in this folder'
        return (
            "```python\nfrom llama_cpp import Llama  # pip install llama-cpp-python\n\n"
            f"model = {how}\n"
            'print(model("Question: ", max_tokens=64)["choices"][0]["text"])\n```\n\n'
            f"llama.cpp itself: `llama-cli -m {file}`, or `llama-server -m {file}`."
        )
    needed = "transformers loads it where torchao is installed: `pip install torchao`.\n\n" if form else ""
    return (
        f"{needed}```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{name}")  # this folder, or its id on the hub\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n```'
    )
