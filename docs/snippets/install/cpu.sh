#: not run: it would fetch packages
pip install torch --index-url https://download.pytorch.org/whl/cpu
pip install unfooled
