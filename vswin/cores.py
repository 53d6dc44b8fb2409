"""Stands here until every import names `vswin.cluster`."""

from vswin.cluster import count_cores as count_cores
