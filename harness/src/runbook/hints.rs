//! "Did you mean": the nearest of the words that would have been right.

/// The candidate that `word` most likely meant, or nothing when none is near: at most one edit in
/// three letters (a transposition counts as one), letter case aside.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(edits, candidate)| *edits <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours.
pub(super) fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut rows = vec![(0..=right.len()).collect::<Vec<_>>()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let substitution = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = substitution.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

/// `text` on one line of at most `width` characters, for display only.
pub(super) fn abbreviate(text: &str, width: usize) -> String {
    let visible: String = text
        .chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .take(width + 1)
        .collect();
    if visible.chars().count() <= width {
        return visible;
    }
    let mut short: String = visible.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// The lines of `output` for display: at most `most` of them, each of at most `width` characters;
/// what is left out in the middle is counted, because both the start and the end of an output tell
/// what went wrong.
pub(super) fn excerpt(output: &str, most: usize, width: usize) -> Vec<String> {
    let lines: Vec<&str> = output.lines().collect();
    if lines.len() <= most {
        return lines.iter().map(|line| abbreviate(line, width)).collect();
    }
    let tail = most / 2;
    let head = most - tail;
    let mut shown: Vec<String> = lines[..head]
        .iter()
        .map(|line| abbreviate(line, width))
        .collect();
    shown.push(format!("[{} lines left out]", lines.len() - most));
    shown.extend(
        lines[lines.len() - tail..]
            .iter()
            .map(|line| abbreviate(line, width)),
    );
    shown
}

/// A duration as people say it: `250 ms`, `30 s`, `1.5 s`, `10 min`.
pub(super) fn spoken(duration: std::time::Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1_000 {
        format!("{millis} ms")
    } else if millis >= 120_000 && millis.is_multiple_of(60_000) {
        format!("{} min", millis / 60_000)
    } else if millis.is_multiple_of(1_000) {
        format!("{} s", millis / 1_000)
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

/// `1 line`, `2 lines`.
pub(super) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood_and_another_word_is_not() {
        let fences = ["console", "text", "toml", "caddyfile"];
        assert_eq!(nearest("consle", fences), Some("console"));
        assert_eq!(nearest("Console", fences), Some("console"));
        assert_eq!(nearest("txet", fences), Some("text"));
        assert_eq!(nearest("bash", fences), None);
    }

    #[test]
    fn a_long_output_keeps_its_start_and_its_end() {
        let output: String = (1..=100).map(|n| format!("line {n}\n")).collect();
        let shown = excerpt(&output, 4, 80);
        assert_eq!(
            shown,
            [
                "line 1",
                "line 2",
                "[96 lines left out]",
                "line 99",
                "line 100"
            ]
        );
        assert_eq!(excerpt(&"x".repeat(50), 4, 10), ["xxxxxxxxx…"]);
    }

    #[test]
    fn durations_are_spoken_as_people_write_them() {
        let spoken = |millis| spoken(std::time::Duration::from_millis(millis));
        assert_eq!(spoken(250), "250 ms");
        assert_eq!(spoken(1_500), "1.5 s");
        assert_eq!(spoken(60_000), "60 s");
        assert_eq!(spoken(600_000), "10 min");
    }
}
