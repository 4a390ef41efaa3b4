#: slow
#: fixtures jpeg.py declared.py
# --- adapted ---
import jpeg

import unfooled as uf

data = uf.data.load("fashion-mnist-sample[0:200]")
verdict = uf.evaluate(jpeg.make(), data, "linf:0.1")

print(
    f"clean {100 * verdict.clean_accuracy.value:.1f} %, under attack {100 * verdict.robust_accuracy.attacked.value:.1f} %"
)
for finding in verdict.findings:
    print(f"{finding.severity} {finding.code}; settled: {finding.settled or 'no'}")
for remedy in verdict.remedies:
    print(f"tried: {remedy.name}: {'kept' if remedy.kept else 'let go'}")

# --- ways ---
import declared

verdict = uf.evaluate(declared.make(), data, "linf:0.1")
ways = verdict.defense


def show(what, estimate):
    print(f"{what:<44}{100 * estimate.value:5.1f} %")


show("clean, without the defense", ways.undefended_clean)
show("clean, with it", ways.defended_clean)
show("1. without the defense, under attack", ways.undefended)
show("2. with it, attacked by who does not know", ways.non_adaptive)
show("3. with it, attacked by who knows", ways.adaptive)
print(f"the gap between 2 and 3: {100 * ways.gap:.1f} points; trust: {verdict.trust}")
