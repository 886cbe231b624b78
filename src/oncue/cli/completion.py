"""``oncue completion``: the script by which a shell completes commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")
_WHERE = {
    "bash": 'eval "$(oncue completion bash)"  # in ~/.bashrc',
    "zsh": 'eval "$(oncue completion zsh)"  # in ~/.zshrc, after compinit',
    "fish": "oncue completion fish | source  # in ~/.config/fish/config.fish",
}


@click.command(
    short_help="Print the script that completes commands in a shell.",
    epilog="\b\n" + "\n".join(_WHERE.values()),
)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script with which bash (4.4 or newer), zsh or fish completes commands, options and their values."""
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(context.find_root().command, {}, "oncue", "_ONCUE_COMPLETE").source())
