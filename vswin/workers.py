"""Stands here until every import names `vswin.cluster`."""

from vswin.cluster import Workers as Workers
