#: not run: it asks which shell it was typed in
unfooled --show-completion
_UNFOOLED_COMPLETE=source_zsh unfooled > ~/.zfunc/_unfooled     # source_bash, source_fish
