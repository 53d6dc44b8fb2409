"""The parser of `vswin`: help that fits the terminal, commands under headings, errors of one paragraph.

The parsers of commands are of this class, too, so a new command needs nothing here.
"""

import argparse
import re
import shutil
import textwrap
from typing import TYPE_CHECKING, Any, NoReturn

from vswin.errors import nearest

if TYPE_CHECKING:
    _Action = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    _Action = argparse._SubParsersAction

_WIDEST = 100
_NARROWEST = 30
# What a shell takes for one word, and an option with its value.
_WORD = r"""(?:[^\s"']|"[^"]*"|'[^']*')+"""
_WORDS = re.compile(rf"--[\w-]+ (?!--|\|){_WORD}|{_WORD}")
_BEFORE_COMMENT = re.compile(" {2,}| (?=# )")
_COMMENT_INDENT = " " * 6


class Commands(_Action):
    """Takes the commands of a parser; those that follow `head` stand below that heading in its help."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.headings: dict[int, str] = {}

    def head(self, title: str) -> None:
        """Begins a group of commands."""
        self.headings[len(self._choices_actions)] = title

    def add_command(self, name: str, text: str, epilog: str = "") -> "Parser":
        """Adds a command.

        Args:
            name: what it is called.
            text: what it does, beginning in lower case; stands in the list of commands, and first in its own help.
            epilog: what its help ends with: prose, and indented lines of examples.
        """
        end = "" if text.endswith("?") else "."
        command = self.add_parser(name, help=text, description=text[0].upper() + text[1:] + end, epilog=epilog)
        assert isinstance(command, Parser)
        return command


class Layout(argparse.HelpFormatter):
    """Wraps prose to the terminal, and keeps indented lines: examples, and keys with their comments.

    A line that is too long gets its comment, which two spaces or more set off, below it; a long command goes on
    after a backslash, so that it can still be copied.
    """

    def __init__(self, prog: str, **options: Any) -> None:
        columns = shutil.get_terminal_size().columns
        super().__init__(prog, width=max(_NARROWEST, min(columns, _WIDEST) - 1), max_help_position=26, **options)

    def _split_lines(self, text: str, width: int) -> list[str]:
        # Not at hyphens: options and published names stay whole.
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        prose: list[str] = []
        for line in [*text.splitlines(), ""]:
            if line and not line.startswith(" "):
                prose.append(line)
                continue
            lines += textwrap.wrap(" ".join(prose), width, break_on_hyphens=False)
            prose = []
            lines += lay_out_line(line, width)
        return "\n".join(f"{indent}{line}" for line in lines)

    def _format_action(self, action: argparse.Action) -> str:
        if not isinstance(action, Commands):
            return super()._format_action(action)
        self._action_max_length += self._indent_increment  # argparse forgets it
        parts: list[str] = []
        for i, command in enumerate(self._iter_indented_subactions(action)):
            if i in action.headings:
                title = f"{' ' * (self._current_indent - 2)}{action.headings[i]}:\n"
                parts.append(f"\n{title}" if parts else title)
            parts.append(super()._format_action(command))
        return "".join(parts)


class Parser(argparse.ArgumentParser):
    """Parses the command line of `vswin` or of one of its commands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register("action", "parsers", Commands)

    def add_commands(self) -> Commands:
        """Lets commands be added; without one of them the help is printed."""
        self.set_defaults(run=lambda _: self.print_help())
        commands = self.add_subparsers(title="commands", metavar="COMMAND")
        assert isinstance(commands, Commands)
        return commands

    def _get_formatter(self) -> argparse.HelpFormatter:
        return Layout(self.prog)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        hint = nearest(str(value), choices, otherwise="")
        listed = "" if "(choices" in hint else f"(choices: {', '.join(choices)})"
        raise argparse.ArgumentError(action, f"invalid choice: {value!r}; {hint} {listed}".rstrip().replace("  ", " "))

    def error(self, message: str) -> NoReturn:
        """Ends the program with one paragraph; the usage is left to `--help`."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def lay_out_line(line: str, width: int) -> list[str]:
    """Breaks an indented line that is too wide: before its comment, or between the words of a command.

    Args:
        line: e.g. "  vswin compare a 'b*'     the first against all others".
        width: columns there are.
    """
    if len(line) <= width:
        return [line]
    text, comment = [*_BEFORE_COMMENT.split(line.strip(), maxsplit=1), ""][:2]
    indent = line[: len(line) - len(line.lstrip())]
    mark = "# " if comment.strip().startswith("#") else ""
    start = _COMMENT_INDENT + mark
    comment = comment.strip().removeprefix("#").strip()
    below = textwrap.wrap(comment, width, initial_indent=start, subsequent_indent=start, break_on_hyphens=False)
    if text.startswith("# "):
        return textwrap.wrap(text[2:], width, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
    if not text.startswith(("vswin ", "python ")):
        return [indent + text, *below]
    lines = [indent.removesuffix(" ")]
    for word in _WORDS.findall(text):
        if len(lines[-1]) + len(word) + 3 > width:  # a space before it, and " \" behind it
            lines[-1] += " \\"
            lines.append(_COMMENT_INDENT.removesuffix(" "))
        lines[-1] += f" {word}"
    return lines + below
