#: slow
# --- gate ---
unfooled evaluate fashion-mnist/hardened fashion-mnist-sample --threat linf:0.1 \
    --assert "attacked>=0.4" --junit robustness.xml --out runs/robustness
# --- hidden-check ---
test -s robustness.xml && test -s runs/robustness/report.html
# --- status ---
status=0
unfooled evaluate fashion-mnist/plain fashion-mnist-sample --threat linf:0.1 --assert "attacked>=0.4" || status=$?
case $status in
    0) echo "as robust as demanded" ;;
    1) echo "less robust than demanded" ;;
    2) echo "too few images to be certain" ;;
    3) echo "no answer: the numbers cannot be believed" ;;
    *) echo "nothing was measured" ;;
esac
# --- hidden-status ---
test $status = 1
