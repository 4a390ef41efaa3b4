#: slow
#: fixtures endpoint
# --- hidden-secret ---
YOUR_TOKEN=0123456789abcdef
# --- secret ---
export AUTHORIZATION_LINE="Authorization: Bearer $YOUR_TOKEN"
unfooled doctor http://127.0.0.1:8000/ "fashion-mnist-sample[0:20]" --model-option header_env=AUTHORIZATION_LINE
