#: slow
#: packages pyarrow
#: fixtures photos scans.csv scans.parquet net.py net.safetensors
unfooled doctor net.py:make scans.csv --weights net.safetensors --columns image=scan,label=diagnosis
unfooled doctor net.py:make scans.parquet:test --weights net.safetensors --columns image=scan,label=diagnosis
