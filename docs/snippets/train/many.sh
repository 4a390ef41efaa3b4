#: not run: needs several devices; tests/test_training_processes.py trains in two processes
accelerate launch --num_processes 8 --module unfooled train fashion-mnist --recipe trades --out hardened.safetensors
torchrun --nproc_per_node 8 -m unfooled train fashion-mnist --recipe trades --out hardened.safetensors
