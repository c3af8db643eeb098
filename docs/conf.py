"Sphinx settings; the pages in _src are written by prepare.py"
import re
from pathlib import Path

here = Path(__file__).parent
about = (here.parent/'pyproject.toml').read_text('utf-8')
url = re.search(r'^Repository = "(.+?)"', about, re.M)[1]

project = 'hipt_nb'
author = 'The hipt_nb authors'
copyright = author + ', Apache-2.0. For research, not for diagnosis'
release = re.search(r"__version__ = ['\"](.+?)['\"]", (here.parent/'hipt_nb'/'__init__.py').read_text('utf-8'))[1]

extensions = ['myst_nb', 'sphinx_design']
exclude_patterns = ['_extra', '**/.ipynb_checkpoints']
nb_execution_mode = 'off'
nb_merge_streams = True
nb_render_markdown_format = 'myst'
myst_enable_extensions = ['amsmath', 'colon_fence', 'dollarmath', 'html_image', 'deflist']
myst_heading_anchors = 4

html_theme = 'sphinx_book_theme'
html_title = f'hipt_nb {release}'
html_favicon = '_src/_static/favicon.svg'
html_baseurl = re.search(r'^Documentation = "(.+?)"', about, re.M)[1]
html_static_path = ['_src/_static']
html_css_files = ['custom.css']
html_js_files = [('site.js', dict(defer='defer'))]
html_extra_path = ['_src/_extra']
html_copy_source = False
html_show_sourcelink = False
html_theme_options = dict(
    repository_url=url, use_repository_button=True, use_download_button=False, home_page_in_toc=True,
    show_navbar_depth=1, navbar_persistent=[], show_toc_level=2, pygments_light_style='a11y-high-contrast-light',
    pygments_dark_style='a11y-high-contrast-dark',
)
if (here/'_src'/'_static'/'mathjax.js').exists(): mathjax_path = 'mathjax.js'
