"""From the API server's JSON to model values: narrow structs that name only what planning reads.

Nothing that one object holds can lose another: a field that cannot be understood degrades to its default, an object
that cannot be read at all is left out, and each is logged once.
"""
