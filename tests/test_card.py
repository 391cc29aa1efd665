from kit.card import Card, Listing, Table, bytes_text


class Hostile(Card):
    def title(self):
        return "<script>alert(1)</script>"

    def facts(self):
        return {"<b>name": "<img src=x>"}

    def tables(self):
        return (Table("<i>", ("<th>",), (("<td>",),)),)


def test_text_lines_up_names_and_values():
    class Two(Card):
        def title(self):
            return "Two facts"

        def facts(self):
            return {"a": 1, "longer": "x"}

    assert str(Two()) == "Two facts\n  a       1\n  longer  x"


def test_everything_foreign_is_escaped():
    html = Hostile()._repr_mimebundle_()["text/html"]
    for bad in ("<script", "<img", "<b>", "<i>", "<th>", "<td><"):
        assert bad not in html


def test_tables_have_a_caption_and_column_headers():
    html = Table("Nodes", ("name", "count"), (("Conv", 3),)).html()
    assert ">Nodes</caption>" in html
    assert html.count('scope="col"') == 2


def test_a_long_title_gets_lines_of_its_own_width_and_a_short_one_stays_on_one():
    short, long = (Table(caption, ("a",), ((1,),)).html() for caption in ("few words", "many words " * 12))
    assert "nowrap" in short
    assert "nowrap" not in long
    assert "min-width" in long


def test_a_long_table_says_how_much_it_leaves_out():
    table = Table("Many", ("n",), tuple((n,) for n in range(60)))
    assert "... and 40 more" in table.text()
    html = table.html()
    assert "45 more rows</summary>" in html
    assert "... and 10 more" in html
    assert html.count("<caption") == html.count("<table") == 2


def test_sizes_read_as_people_write_them():
    assert [bytes_text(n) for n in (0, 999, 1000, 4_812_345, 3.4e9)] == ["0 B", "999 B", "1.0 kB", "4.8 MB", "3.4 GB"]


def test_a_card_without_facts_is_a_sentence_not_an_empty_table():
    class Said(Card):
        def title(self):
            return "It is 3."

    assert Said().html() == "<p>It is 3.</p>"


def test_a_listing_is_shown_as_it_is_and_can_be_copied():
    made = Listing("The command", "atc \\\n    --model=<x>")
    assert made.text() == "The command\n  atc \\\n      --model=<x>"
    assert "<pre>atc \\\n    --model=&lt;x&gt;</pre>" in made.html()
    long = Listing("A file", "\n".join(map(str, range(700))))
    assert "<details>" in long.html()
    assert "... and 200 more" in long.html()
    assert "... and 640 more" in long.text()
