#: not run: it changes the settings of the user's shell
unfooled --install-completion     # for the shell that you type this in: bash, zsh, fish, PowerShell
