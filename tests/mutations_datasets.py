"""Mutations of data sets, records, verification and the comparison of models."""

from mutations_around import Mutation

DATASETS = [
    Mutation(
        "datasets/codes.py",
        "roots = np.copysign(roots, scaled)",
        "pass",
        "test_datasets.py::test_a_code_is_within_its_error_and_keeps_zero_and_the_peak",
    ),
    Mutation(
        "datasets/codes.py",
        "np.rint(roots)",
        "np.floor(roots)",
        "test_datasets.py::test_a_code_is_within_its_error_and_keeps_zero_and_the_peak",
    ),
    Mutation(
        "datasets/manifest.py",
        "/ 127.0)",
        "/ 128.0)",
        "test_datasets.py::test_the_documented_line_decodes_without_this_package",
    ),
    Mutation(
        "methods/table.py",
        'return bool(getattr(self.composition, "never_negative", False))',
        "return True",
        "test_datasets.py::test_codes_are_signed_only_where_maps_may_be",
    ),
    Mutation(
        "datasets/run.py",
        "if entry is None:",
        "if True:",
        "test_datasets.py::test_a_run_continues_with_what_is_missing",
    ),
    Mutation(
        "datasets/run.py",
        "if digest_ids(ids) != entry.ids:",
        "if False:",
        "test_datasets.py::test_a_stream_must_yield_the_same_images_again",
    ),
    Mutation(
        "datasets/run.py",
        "self.errors > max_errors",
        "self.errors >= max_errors",
        "test_datasets.py::test_a_bad_image_is_a_row_and_is_tried_again",
    ),
    Mutation(
        "datasets/pipeline.py",
        "for place, value in zip(own, given[name], strict=True):",
        "for place, value in enumerate(given[name]):",
        "test_datasets.py::test_a_bad_image_is_a_row_and_is_tried_again",
    ),
    Mutation(
        "datasets/pipeline.py",
        "computed: list[Sequence[int]] = list(task.before)",
        "computed: list[Sequence[int]] = []",
        "test_datasets.py::test_the_rows_that_were_tried_again_are_in_the_log",
    ),
    Mutation(
        "datasets/pipeline.py",
        "if len(waiting) > self._ahead:",
        "if len(waiting) > 1000 * self._ahead:",
        "test_datasets.py::test_reading_and_decoding_are_ahead_but_not_far",
    ),
    Mutation(
        "datasets/explainer.py",
        "batch = [self._checked(each) for each in batch]",
        "batch = [each._replace(pixels=None) for each in batch]",
        "test_datasets.py::test_an_array_that_the_model_refuses_is_a_row",
    ),
    Mutation(
        "datasets/explainer.py",
        "decoded.target >= (self._classes or np.inf)",
        "decoded.target > (self._classes or np.inf) * 100",
        "test_datasets.py::test_labels_are_targets_by_number_and_by_name",
    ),
    Mutation(
        "datasets/parts.py",
        "lines.get(number) or entry_of_file(folder, number)",
        "lines[number]",
        "test_datasets_damage.py::test_the_log_is_mended",
    ),
    Mutation(
        "datasets/folder.py",
        "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        "test_datasets.py::test_only_one_run_at_a_time",
    ),
    Mutation(
        "datasets/sources.py",
        "if not any(np.ndim(part) == self._rank + 1 for part in parts if _is_array(part)):",
        "if True:",
        "test_datasets.py::test_all_sources_give_the_same_maps",
    ),
    Mutation(
        "datasets/parquet_source.py",
        "offset = position - self._next",
        "offset = 0",
        "test_datasets.py::test_all_sources_give_the_same_maps",
    ),
    Mutation(
        "records/digests.py",
        "_numbered(item, numbers) if key in _NAMES else",
        "",
        "test_verify.py::test_digests_do_not_depend_on_names_and_seeds",
    ),
    Mutation(
        "records/comparison.py",
        "changed = [(path, a, b) for (path, a), b in pairs if a != b]",
        "changed = []",
        "test_verify.py::test_one_weight_is_named",
    ),
    Mutation(
        "datasets/verify_run.py",
        "chosen += check.groups(part)",
        "check.groups(part)",
        "test_verify.py::test_what_was_tampered_with_is_named",
    ),
    Mutation(
        "datasets/verify_run.py",
        "if standard.accepts(before, after, 2 * largest_error(code)):",
        "if True:",
        "test_verify.py::test_one_pixel_of_one_photo_is_named",
    ),
    Mutation(
        "datasets/verification.py",
        "return Standard(record.tolerance if notes else rounding, tuple(notes))",
        "return Standard(record.tolerance, tuple(notes))",
        "test_verify.py::test_saliency_maps_are_computed_again_from_their_file",
    ),
    Mutation(
        "sanity/model_comparison.py",
        "given = targets if not pair else _targets(pair[0])",
        "given = targets",
        "test_compare_models.py::test_both_models_explain_the_same_class",
    ),
    Mutation(
        "sanity/model_comparison.py",
        'order = np.argsort(np.nan_to_num(means, nan=-1.0), kind="stable")',
        'order = np.argsort(-np.nan_to_num(means, nan=-1.0), kind="stable")',
        "test_compare_models.py::test_photos_that_changed_are_named_and_drawn",
    ),
]
