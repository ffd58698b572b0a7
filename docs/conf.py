"""How Sphinx makes the site: `make docs`, into build/docs."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import error_messages  # noqa: E402
import tutorials_in  # noqa: E402

from functorch_ext._build_info import TORCH_VERSION  # noqa: E402

project = "functorch_ext"
author = "the authors of functorch_ext"
project_copyright = author
release = version = f"for torch {TORCH_VERSION.partition('+')[0]}"

error_messages.write(HERE.parent, HERE / "guides" / "error-messages.md")
tutorials_in.copy(HERE.parent / "tutorials", HERE / "tutorials")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "inline_svg",
    "mathml",
]
exclude_patterns = ["_*", "**/.ipynb_checkpoints"]
templates_path = ["_templates"]

# Markdown and notebooks. Notebooks hold their outputs, which a test computes again.
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 4
nb_execution_mode = "off"
suppress_warnings = ["mystnb.unknown_mime_type"]

# Docstrings.
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_preprocess_types = False
add_module_names = False
viewcode_line_numbers = True

# Looks. Nothing is loaded from elsewhere: the site works from a folder, without a network.
html_theme = "furo"
html_title = "functorch_ext"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("tables.js", {"defer": "defer"})]
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {"color-brand-primary": "#0061a8", "color-brand-content": "#0061a8"},
    "dark_css_variables": {"color-brand-primary": "#6cb6ff", "color-brand-content": "#6cb6ff"},
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
