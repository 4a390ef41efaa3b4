#: not run: it would fetch the package
pip install unfooled
unfooled demo            # about a minute, offline: is all well?
