"""Hardware file of one machine, as `parframe measure` writes it, with easy numbers."""

SPEEDS = "sizes = [1, 512]\ngiga_per_s = [{}, {}]\n"


def device_toml(key, speed):
    """Return a device whose kernels have a multiple of the given speed."""
    lines = [
        f'[device.{key}]\nname = "here"\ndense_tflops = {{ fp32 = 0.2 }}\nmemory_gib = 8\n'
        f"bandwidth_gb_s = {4 * speed}\n"
    ]
    for operator in ("product", "decode", "prompt", "pointwise"):
        low = speed / 10 if operator == "product" else 100 * speed
        lines.append(f"[device.{key}.measured.{operator}.fp32]\n" + SPEEDS.format(100 * speed, low))
    return "".join(lines)


def machine_toml(ranks, speed, alone=None):
    """Return a machine of some ranks; ``alone`` is the speed while the others wait."""
    key = f"here_{ranks}"
    more = f'alone = "{key}_alone"\n' if alone else ""
    return (
        device_toml(key, speed)
        + (device_toml(f"{key}_alone", alone) if alone else "")
        + f'[machine.{key}]\nname = "here"\ndevice = "{key}"\ngpus = {ranks}\n{more}'
        f"divided = {ranks}\npcie = {{ gb_s = 5 }}\n"
        f"[machine.{key}.engine.parframe]\nstep_overhead = 0.001\nreserved_bytes = 1e8\n"
        "cache_fraction = 1.0\nstatic_batching = true\nall_logits = true\n"
        f"[[machine.{key}.collective]]\n"
        'kind = "all_reduce"\nranks = 2\nbytes = [1024, 1048576]\nus = [100, 1000]\n'
        f"[[machine.{key}.collective]]\n"
        'kind = "send"\nranks = 2\nbytes = [1024, 1048576]\nus = [50, 500]\n'
    )


HERE = machine_toml(1, 2) + machine_toml(2, 1, alone=1.5)
"""The machine with one rank and with two."""

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 256,
}  # fmt: skip
