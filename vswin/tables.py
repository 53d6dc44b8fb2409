"""Stands here until every import names `vswin.console`."""

from vswin.console import NARROW as NARROW
from vswin.console import make_progress_bar as make_progress_bar
from vswin.console import print_table as print_table
from vswin.console import say as say
from vswin.console import window_width as window_width
