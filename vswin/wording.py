"""Stands here until every import names `vswin.console`."""

from vswin.console import count_of as count_of
from vswin.console import printable as printable
from vswin.console import printable_lines as printable_lines
