#: slow
#: fixtures test_robustness.py
pytest test_robustness.py --junitxml tests.xml --unfooled-out reports
