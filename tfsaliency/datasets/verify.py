"""verify: computes a result again, and says what differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ..arrays import Array
from ..display.progress import Verbose
from ..engine.functions import Model
from ..errors import OptionError, ResultError, check_int
from ..evaluation import Evaluation, evaluate
from ..evaluation.table import metrics_from_plain
from ..maps import attributions, saliency_map
from ..methods.plain import method_to_plain
from ..methods.table import Method, MethodsArgument, resolve_methods
from ..prepared import Prepared, Preprocess, prepare
from ..records import Record, digest_model
from ..records.comparison import Difference, compare_records, compare_values
from ..records.making import OF_PREPARED, describe_prepared, digest_images
from ..saliency_maps import SaliencyMaps
from ..sanity import (
    CSCProfile,
    InputInvariance,
    SanityResult,
    csc_profile,
    input_invariance_check,
    random_logit_check,
    sanity_check,
)
from ..storage import read_kind
from ..synthetic import GroundTruth
from .dataset import ExplainedDataset, open_dataset
from .verification import (
    Verification,
    choose_standard,
    compare_each,
    compare_numbers,
    make_verification,
)
from .verify_run import verify_run

Saved = SaliencyMaps | SanityResult | Evaluation | CSCProfile | InputInvariance
Result = Saved | ExplainedDataset
_READERS: dict[str, Any] = {kind.__name__: kind.load for kind in get_args(Saved)}
_NO_DIGEST = "the record has no digest of the weights; prepare(model, digest=True) adds it"


def verify(
    result: Result | str | PathLike[str],
    model: Model | Prepared,
    data: Any = None,
    *,
    methods: MethodsArgument | None = None,
    preprocess: Preprocess | None = None,
    sample: int | None = 64,
    seed: int = 0,
    verbose: Verbose = "auto",
) -> Verification:
    """Compute a result again, and say by name what differs.

    With the versions and the device of the record, numbers must be the same to the bit. With
    others, the difference of a map may be record.tolerance of its norm.

    Parameters
    ----------
    result
        A folder of explain_dataset, a file that `save` of SaliencyMaps, SanityResult, Evaluation,
        CSCProfile or InputInvariance wrote, or one of these.
    model
        The model, or the result of prepare with the score and preprocessing of the record.
    data
        What the result was computed from, where it does not contain it: the images (n, h, w, c) of
        a check, the GroundTruth or the images of an Evaluation, the source of a data set. By
        default, the source at the path that the manifest names.
    methods
        The methods; by default, those of the record. Needed if they have functions or arrays of
        your own, of which the record has only names and digests.
    preprocess
        The preprocessing of the record, for a model that is not prepared.
    sample
        For a data set, the number of images to compute again, in whole batches drawn at random;
        None computes all. The digests of the model, the source and all parts are always compared.
    seed
        The seed of the sample.
    verbose
        Progress, as for saliency_map.

    Returns
    -------
    Verification, which prints what differs; its attribute `confirmed` is True if nothing does.

    Raises
    ------
    OptionError
        If data, methods or preprocess are needed to compute the result again.
    ResultError
        If a file is damaged, or has no record.

    References
    ----------
    Rule et al. 2019, doi:10.1371/journal.pcbi.1007007 (reproducible notebooks); docs/record.md.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> images = tfs.synthetic.make_shapes(4, seed=0).images
    >>> model = tfs.synthetic.shapes_model()
    >>> _ = tfs.explain_dataset(model, images, "verified_maps")
    >>> tfs.verify("verified_maps", model, images).confirmed
    True
    """
    if sample is not None:
        check_int("sample", sample, 1)
    check_int("seed", seed, 0)
    opened = _open(result)
    record = opened.record
    if record is None:
        raise ResultError(
            "Expected a result with a record. Received: one of an earlier version, without it."
        )
    own = record.build_methods() if methods is None else resolve_methods(methods)
    prepared = _prepare(model, record, preprocess)
    replay = _Replay(record, prepared, own, data, verbose)
    if isinstance(opened, ExplainedDataset):
        return verify_run(
            opened, prepared, own, data, sample, seed, replay.compare_record(), verbose
        )
    if isinstance(opened, SaliencyMaps):
        return replay.verify_maps(opened)
    if isinstance(opened, SanityResult):
        return replay.verify_check(opened)
    if isinstance(opened, Evaluation):
        return replay.verify_evaluation(opened)
    return replay.verify_values(opened)


def _open(result: Any) -> Result:
    if isinstance(result, Result):
        return result
    if not isinstance(result, (str, PathLike)):
        raise OptionError(
            f"Expected a folder of explain_dataset, or a result. Received: {result!r:.100}."
        )
    path = Path(result)
    if path.is_dir():
        return open_dataset(path)
    if not path.exists():
        raise OptionError(f"Expected a folder or a result file. Received: {path}, which is none.")
    kind = read_kind(path)
    if kind not in _READERS:
        raise ResultError(
            f"Expected a file of {', '.join(_READERS)}. Received: {path}, "
            f"{'of ' + kind if kind else 'damaged, or of another program'}."
        )
    opened: Result = _READERS[kind](path)
    return opened


def _prepare(model: Any, record: Record, preprocess: Any) -> Prepared:
    """Return the model as it was prepared."""
    if isinstance(model, Prepared):
        if preprocess is not None:
            raise OptionError(
                "Expected preprocess in prepare() only. Received: a prepared model and preprocess."
            )
        return model
    parameters = record.parameters
    if isinstance(parameters.get("score"), dict):
        raise OptionError(
            f"Expected a prepared model with the score {parameters['score']}. Received: a model."
        )
    if preprocess is None and parameters.get("preprocess") is not None:
        raise OptionError(
            f"Expected preprocess, as recorded: {parameters['preprocess']}. Received: none."
        )
    names = (name for name in OF_PREPARED if name != "preprocess")
    known = {name: parameters[name] for name in names if name in parameters}
    return prepare(model, preprocess=preprocess, **known)


@dataclass(frozen=True, eq=False)
class _Replay:
    """One verification."""

    record: Record
    prepared: Prepared
    methods: tuple[Method, ...]
    data: Any
    verbose: Verbose

    def compare_record(self) -> list[Difference]:
        """Return what differs in model, methods and the options of prepare."""
        prepared = self.prepared
        current = Record(
            self.record.call,
            digest_model(prepared.model),
            tuple(map(method_to_plain, self.methods)),
            {**self.record.parameters, **describe_prepared(prepared)},
            versions=self.record.versions,
        )
        return compare_records(self.record, current)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what the record lacks."""
        return () if self.record.model.weights else (_NO_DIGEST,)

    def targets(self, recorded: Array) -> Any:
        """Return the targets to explain again."""
        return None if self.record.parameters.get("targets") == "top class" else recorded.tolist()

    def options(self, *names: str) -> dict[str, Any]:
        """Return some options of the recorded call."""
        return {name: self.record.parameters[name] for name in names}

    def verify_maps(self, maps: SaliencyMaps) -> Verification:
        """Compute maps again from their own images."""
        _refuse_constants(self.record)
        standard = choose_standard(self.record)
        images, signed = maps.images, self.record.call == "attributions"
        options = self.options("batch_size") if signed else self.options("batch_size", "reduction")
        function: Callable[..., SaliencyMaps] = attributions if signed else saliency_map
        again = function(
            self.prepared, images, self.methods, targets=self.targets(maps.targets),
            class_names=maps.class_names or None, on_problem="ignore", verbose=self.verbose,
            **options,
        )  # fmt: skip
        found = self.compare_record()
        for i in range(len(images)):
            name = maps.names[i] if maps.names else f"image {i}"
            for what in ("targets", "scores", "outputs"):
                old, new = (getattr(each, what)[i] for each in (maps, again))
                found += compare_numbers(f"{what[:-1]} of {name}", old, new, standard)
            for method in maps:
                if method in again:
                    old, new = maps[method][i], again[method][i]
                    found += compare_numbers(f"map {method} of {name}", old, new, standard)
        n = len(images)
        what = f"maps of {', '.join(maps)}, targets, scores and outputs of {_images(n)}"
        return make_verification(f"SaliencyMaps of {_images(n)}", found, what, standard, self.notes)

    def verify_check(self, result: SanityResult) -> Verification:
        """Run a sanity check again."""
        _refuse_constants(self.record)
        if self.record.call not in ("sanity_check", "random_logit_check"):
            raise OptionError(
                "Expected a result of sanity_check or random_logit_check, to be computed again. "
                f"Received: one of {self.record.call}, for which other networks are needed."
            )
        images = self._needed(len(result.images))
        options = self.options("similarities", "seeds", "batch_size")
        names = ("plan", "randomizer", "retarget", "baseline")
        if self.record.call == "sanity_check":
            options |= self.options(*names)
        elif "against" in self.record.parameters:
            options |= self.options("against")
        function: Callable[..., SanityResult] = sanity_check
        if self.record.call == "random_logit_check":
            function = random_logit_check
        again = function(
            self.prepared, images, self.methods, targets=self.targets(result.targets),
            on_problem="ignore", verbose=self.verbose, **options,
        )  # fmt: skip
        standard = choose_standard(self.record)
        found = self.compare_record() + self._compare_inputs(images, result.images)
        found += compare_each(("targets", "scores", "values", "chance"), result, again, standard)
        for method, verdicts in result.verdicts.items():
            for old, new, step in zip(verdicts, again.verdicts[method], result.steps, strict=True):
                name = f"verdict on {method} at {step.name}"
                found += compare_values(name, old.verdict, new.verdict)
        what = f"{result.values.size} similarities and all verdicts"
        subject = f"SanityResult of {_images(len(result.images))}"
        return make_verification(subject, found, what, standard, self.notes)

    def verify_evaluation(self, result: Evaluation) -> Verification:
        """Measure maps again."""
        masked = self.record.parameters.get("masks", "") is not None
        if self.data is None or masked != isinstance(self.data, GroundTruth):
            what = "the GroundTruth" if masked else "the images"
            raise OptionError(
                f"Expected data, {what} of the evaluation. Received: {type(self.data).__name__}."
            )
        options = self.options("reduction", "seed", "batch_size")
        recorded = self.record.parameters.get("metrics")
        again = evaluate(
            self.prepared, self.data, self.methods,
            metrics=None if recorded is None else metrics_from_plain(recorded),
            targets=None if masked else np.array(self.record.parameters["labels"], np.int32),
            on_problem="ignore", verbose=self.verbose, **options,
        )  # fmt: skip
        standard = choose_standard(self.record)
        images = self.data.images if masked else self.data
        found = self.compare_record() + self._compare_inputs(images, result.images)
        if again.record is not None:
            for name in ("masks", "labels"):
                pair = (each.parameters.get(name) for each in (self.record, again.record))
                found += compare_values(name, *pair)
        names = ["values", "chance"]
        if result.other_photo is not None:
            names.append("other_photo")
        found += compare_each(names, result, again, standard)
        what = f"{result.values.size} values"
        n = result.values.shape[-1]
        return make_verification(f"Evaluation of {_images(n)}", found, what, standard, self.notes)

    def verify_values(self, result: CSCProfile | InputInvariance) -> Verification:
        """Measure cosines of random vectors, or changes of maps, again."""
        n = result.values.shape[-1]
        images = self._needed(n)
        names = ["values"]
        again: CSCProfile | InputInvariance
        if isinstance(result, CSCProfile):
            names.append("chance")
            again = csc_profile(
                self.prepared, images, self.methods, verbose=self.verbose,
                **self.options("start", "layers", "draws", "seed", "batch_size"),
            )  # fmt: skip
        else:
            targets = self.targets(np.array(self.record.parameters["targets"]))
            again = input_invariance_check(
                self.prepared, images, self.methods, targets=targets, verbose=self.verbose,
                **self.options("shift", "batch_size"),
            )  # fmt: skip
        standard = choose_standard(self.record)
        found = self.compare_record() + self._compare_inputs(images, ())
        found += compare_each(names, result, again, standard)
        for method in result.methods:
            if method in again.methods:
                verdicts = (each.verdict(method) for each in (result, again))
                found += compare_values(f"verdict on {method}", *verdicts)
        what = f"{result.values.size} values and all verdicts"
        subject = f"{type(result).__name__} of {_images(n)}"
        return make_verification(subject, found, what, standard, self.notes)

    def _needed(self, n: int) -> Any:
        if self.data is None:
            raise OptionError(f"Expected data, the {n} images of the check. Received: none.")
        return self.data

    def _compare_inputs(self, images: Any, names: Sequence[str]) -> list[Difference]:
        batch = self.prepared.check(images).images
        now, before = digest_images(batch), self.record.inputs
        found = compare_values("number of images", len(before), len(now))
        for i, (old, new) in enumerate(zip(before, now, strict=False)):
            name = names[i] if i < len(names) else str(i)
            found += compare_values(f"pixels of image {name}", old[:16], new[:16])
        return found


def _refuse_constants(record: Record) -> None:
    """Raise OptionError if other inputs or a region are needed, which no file contains."""
    known = {
        *OF_PREPARED, "targets", "reduction", "batch_size", "similarities", "baseline", "seeds",
        "plan", "randomizer", "retarget", "permuted", "against",
    }  # fmt: skip
    others = sorted(set(record.parameters) - known)
    if others:
        raise OptionError(
            "Expected a result that depends on its images alone, to be computed again. Received: "
            f"one with {', '.join(others)}, of which the record has only the digest."
        )


def _images(n: int) -> str:
    return f"{n} image{'' if n == 1 else 's'}"
