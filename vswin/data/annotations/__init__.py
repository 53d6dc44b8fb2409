"""Annotation files as the owners of the data sets publish them, a module for each owner.

Every such module has the same two functions, which `vswin.data.catalog` calls: `find_lists` looks for the files in
their usual places, `read_annotations` reads one of them, if its content shows the owners' format.
"""
