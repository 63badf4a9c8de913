"""How large Python code is. Explaining costs nothing: comments and docstrings are no tokens."""

import ast
import io
import re
import tokenize


def code_size(code: str) -> tuple[int, int]:
    """Tokens of Python code (names, operators, numbers, strings), and the lines they stand on."""
    # An f-string is several tokens from Python 3.12 on; as a plain string it is one everywhere.
    code = re.sub(r"""(?<!\\)\b(r?)f(r?)(?=["'])""", r"\1\2", code)
    explained = set()
    for node in ast.walk(ast.parse(code)):
        # A constant that stands alone is a docstring.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            explained.update(range(node.lineno, node.end_lineno + 1))
    tokens = 0
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        first, last = token.start[0], token.end[0]
        # Ends of lines and indents are blank.
        counts = token.string.strip() and token.type != tokenize.COMMENT
        if counts and first not in explained:
            tokens += 1
            lines.update(range(first, last + 1))
    return tokens, len(lines)
