"""Configuration of Sphinx; `scripts/docs` builds the pages into docs/_build/html."""

import shutil
import sys
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.util.inspect import TypeAliasForwardRef

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tfsaliency as tfs  # noqa: E402
from tfsaliency import synthetic  # noqa: E402

project = "tfsaliency"
author = copyright = "the tfsaliency developers"
release = version = tfs.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "figures/README.md"]

html_theme = "furo"
html_title = f"tfsaliency {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_theme_options = {"source_repository": "https://github.com/tfsaliency/tfsaliency/"}

# Notebooks are shown with their committed outputs; tests execute them.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
# Aliases are shown by name: their definitions are long, and an editor shows the names too.
autodoc_type_aliases = {
    name: name
    for name in (
        "ClosedFormName",
        "Control",
        "Fit",
        "MethodName",
        "MethodsArgument",
        "MetricName",
        "Model",
        "OnProblem",
        "Plan",
        "Precision",
        "Preprocess",
        "RandomizerName",
        "ReductionName",
        "Rule",
        "RuleName",
        "Score",
        "ScoreName",
        "SimilaritiesArgument",
        "SimilarityName",
        "VariantName",
    )
} | {"Array": "numpy.ndarray"}
TypeAliasForwardRef.__repr__ = lambda self: self.name  # in unions, too
napoleon_google_docstring = False
napoleon_use_rtype = True
add_module_names = False
python_use_unqualified_type_names = True

# Sphinx reads pages below docs/ only.
shutil.rmtree(ROOT / "docs" / "notebooks", ignore_errors=True)
shutil.copytree(ROOT / "notebooks", ROOT / "docs" / "notebooks")


class OptionTable(Directive):
    """Show one of the package's tables of options as it prints, such as METHODS."""

    required_arguments = 1

    def run(self):
        """Return the printed table as a literal block."""
        name = self.arguments[0]
        text = repr(getattr(tfs, name, None) or getattr(synthetic, name))
        return [nodes.literal_block(text, text, language="text")]


def describe_returns(app, what, name, obj, options, lines):
    """Put the annotated type above the text of a section Returns, where napoleon expects it."""
    if "Returns" not in lines:
        return
    start = lines.index("Returns") + 2
    stop = next((i for i in range(start, len(lines)) if lines[i] == ""), len(lines))
    kind = getattr(obj, "__annotations__", {}).get("return", "object")
    lines[start:stop] = [kind, *(f"    {line}" for line in lines[start:stop])]


def setup(app):
    """Register the directive, and the listener before napoleon's."""
    app.add_directive("option-table", OptionTable)
    app.connect("autodoc-process-docstring", describe_returns, priority=100)
