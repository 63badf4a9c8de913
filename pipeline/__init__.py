"""Build the notebooks, run them as a batch, check gates, write the report, lint and publish."""

import sys

# jsonschema, by nbformat, would compile a grammar of addresses that no notebook has: a second.
sys.modules.setdefault("rfc3987_syntax", None)
