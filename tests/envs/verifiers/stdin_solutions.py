"""Our own solutions of some problems on standard input, by problem id."""

SOLUTIONS = {
    "codeforces-0003": """
for _ in range(int(input())):
    s = input().strip()
    blocks = 1 + sum(a != b for a, b in zip(s, s[1:]))
    print(blocks - ("01" in s))
""",
    "codeforces-0096": """
for _ in range(int(input())):
    a, b = input().split()
    print(b[0] + a[1:], a[0] + b[1:])
""",
    "codeforces-0303": """
for _ in range(int(input())):
    n, k = map(int, input().split())
    if k == 1:
        print(n)
        continue
    steps = 0
    while n:
        steps += n % k
        n //= k
    print(steps)
""",
    "codeforces-0102": """
M = 10**9 + 7
for _ in range(int(input())):
    l, r, k = map(int, input().split())
    digits = 9 // k + 1
    print((pow(digits, r, M) - pow(digits, l, M)) % M)
""",
    "codeforces-0221": """
for _ in range(int(input())):
    n, m, k = map(int, input().split())
    print(min(n, k) * min(m, k))
""",
    "codeforces-0043": """
for _ in range(int(input())):
    n, m = map(int, input().split())
    print("Yes" if n >= m and (n - m) % 2 == 0 else "No")
""",
    "codeforces-0113": """
for _ in range(int(input())):
    n, k = map(int, input().split())
    print((n - 1) * k + 1)
""",
    "codeforces-0267": """
for _ in range(int(input())):
    l, r = map(int, input().split())
    low, high = 0, 10**5
    while low < high:
        middle = (low + high + 1) // 2
        if middle * (middle + 1) // 2 <= r - l:
            low = middle
        else:
            high = middle - 1
    print(low + 1)
""",
    "code-contests-0139": """
for _ in range(int(input())):
    s = input().strip()
    h = len(s) // 2
    print("YES" if len(s) % 2 == 0 and s[:h] == s[h:] else "NO")
""",
    "code-contests-0075": """
n = int(input())
a = list(map(int, input().split()))
left = [1] * n
right = [1] * n
for i in range(n - 2, -1, -1):
    if a[i] < a[i + 1]:
        left[i] = left[i + 1] + 1
for i in range(1, n):
    if a[i] < a[i - 1]:
        right[i] = right[i - 1] + 1
i, j, last, turn = 0, n - 1, -1, 0
while True:
    can_left, can_right = i <= j and a[i] > last, i <= j and a[j] > last
    x, y = min(left[i], j - i + 1), min(right[j], j - i + 1)
    if can_left and can_right and a[i] != a[j]:
        # The larger end decides the rest; while its run is even, the smaller one is taken.
        run = x if a[i] > a[j] else y
        if run % 2 == 1:
            wins = True
            break
        if a[i] > a[j]:
            last, j = a[j], j - 1
        else:
            last, i = a[i], i + 1
        turn ^= 1
        continue
    wins = (can_left and x % 2 == 1) or (can_right and y % 2 == 1)
    break
print(("Alice", "Bob")[turn if wins else 1 - turn])
""",
    "code-contests-0027": """
import sys
data = sys.stdin.read().split()
for t in range(int(data[0])):
    n, m, k = map(int, data[1 + 3 * t : 4 + 3 * t])
    if n == 1:
        ok = m == 0 and k > 1
    elif m < n - 1 or m > n * (n - 1) // 2 or k < 3:
        ok = False
    else:
        ok = m == n * (n - 1) // 2 or k > 3
    print("YES" if ok else "NO")
""",
    "code-contests-0003": """
s = input().strip()
def count(s):
    if len(s) > 1 and s[0] == "0":
        return 0
    if len(s) == 1:
        return int(s in ("0", "_"))
    total = 0
    for end in ("00", "25", "50", "75"):
        if all(a in ("_", b) for a, b in zip(s[-2:], end)):
            head, ways = s[:-2], 1
            for i, c in enumerate(head):
                if c == "_":
                    ways *= 9 if i == 0 else 10
            if not head and end[0] == "0":
                ways = 0
            total += ways
    return total
if "X" in s:
    print(sum(count(s.replace("X", d)) for d in "0123456789"))
else:
    print(count(s))
""",
}
