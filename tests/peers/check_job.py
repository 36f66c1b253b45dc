"""check_job.py FILE: a Kubernetes Job follows the API's schema, and as many parts are drawn as it has completions."""
import sys

try:
    import kubernetes_validate
    import yaml
except ImportError as e:
    print(f"{e}; tests/run installs it", file=sys.stderr)
    sys.exit(77)

job = yaml.safe_load(open(sys.argv[1]))
kubernetes_validate.validate(job, "1.33", strict=True)
arguments = job["spec"]["template"]["spec"]["containers"][0]["command"]
parts = int(arguments[arguments.index("--parts") + 1])
assert job["spec"]["completionMode"] == "Indexed" and job["spec"]["completions"] == parts, parts
for wrong in ({"completions": "8"}, {"completion": 8}):
    try:
        kubernetes_validate.validate({**job, "spec": {**job["spec"], **wrong}}, "1.33", strict=True)
    except kubernetes_validate.ValidationError:
        continue
    raise AssertionError(f"{wrong} is accepted")
