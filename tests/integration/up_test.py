#!/usr/bin/env python3
"""`epic up` from end to end, by its commands: register, ask, list, delete, stop, start again, change the model."""

import pathlib
import signal
import time
import unittest

from epic_harness import (
    BIN, MODEL, OTHER_MODEL, REAL_MODEL, SOURCE, EpicTest, free_address, prose, run, scrape, wait_until,
)

LINKERS = ["full", "prefix", "naive", "naive-last", "cacheblend:15", "legolink:0", "legolink:2", "legolink:16", "random:15"]


class Answers(EpicTest):
    """Over one running EPIC with two documents of several chunks each."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.process, cls.epic = cls.start_up()
        cls.north = cls.epic.register(cls.write("north.txt", prose("north", 500)))
        cls.south = cls.epic.register(cls.write("south.txt", prose("south", 420)))

    def tearDown(self):
        self.epic.wait_idle()

    def test_documents_are_compiled_in_several_chunks(self):
        for document in (self.north, self.south):
            self.assertTrue(document["created"])
            self.assertEqual(document["state"], "ready")
            self.assertGreaterEqual(document["chunks"], 2)
            self.assertEqual(document["compiled_chunks"], document["chunks"])
            self.assertEqual(document["resident_chunks"], document["chunks"])

    def test_a_raw_prompt_is_the_documents_and_the_text_alone(self):
        def prompt_tokens(*options):
            arguments = ["ask", "more", "--doc", "north", "--max-tokens", 2, "--format", "json", *options]
            return self.epic.ok(*arguments).json["usage"]["prompt_tokens"]

        # One token a letter at most, and nothing of the chat layout.
        document = self.north["tokens"]
        self.assertGreater(prompt_tokens("--raw"), document)
        self.assertLessEqual(prompt_tokens("--raw"), document + len("more"))
        self.assertGreater(prompt_tokens(), document + len("more"))
        result = self.epic.run("ask", "more", "--raw", "--system", "x")
        self.assert_sentence(result, "--raw", "--system", code=2)

    def test_every_linker_answers(self):
        for linker in LINKERS:
            with self.subTest(linker):
                answer = self.epic.ask(["north", "south"], linker=linker)
                self.assertEqual(answer["linker"], linker)
                self.assertIn(answer["finish_reason"], ("stop", "length"))
                self.assertLessEqual(len(answer["token_ids"]), 16)
                usage = answer["usage"]
                self.assertEqual(usage["cached_tokens"], self.north["tokens"] + self.south["tokens"])
                self.assertGreater(usage["prompt_tokens"], usage["cached_tokens"])
                self.assertGreater(answer["timing_us"]["ttft"], 0)
                self.assertLessEqual(answer["timing_us"]["ttft"], answer["timing_us"]["total"])

    def test_linkers_recompute_what_they_say(self):
        usage = {
            linker: self.epic.ask(["north", "south"], "What?", linker, 16, "--afresh")["usage"] for linker in LINKERS
        }
        prompt, cached = usage["full"]["prompt_tokens"], usage["full"]["cached_tokens"]
        chunks = self.north["chunks"] + self.south["chunks"]
        fresh = prompt - cached
        for linker in LINKERS:
            self.assertEqual(usage[linker]["prompt_tokens"], prompt, linker)  # one layout for all of them
        self.assertEqual(usage["full"]["recomputed_tokens"], prompt)
        self.assertEqual(usage["naive"]["recomputed_tokens"], fresh)
        self.assertEqual(usage["legolink:0"]["recomputed_tokens"], fresh)
        # The chunks of a document have seen each other: only the first has a head that is stale.
        self.assertEqual(usage["legolink:2"]["recomputed_tokens"], fresh + 2 * 2)
        self.assertEqual(usage["legolink:16"]["recomputed_tokens"], fresh + 16 * 2)
        plain = self.epic.ask(["north", "south"], "What?", "legolink:16@plain", 16, "--afresh")["usage"]
        self.assertEqual(plain["recomputed_tokens"], fresh + 16 * chunks)
        self.assertEqual(usage["naive-last"]["selected_tokens"], 1)
        chosen = usage["cacheblend:15"]["selected_tokens"]
        self.assertAlmostEqual(chosen, fresh + 0.15 * cached, delta=2)
        self.assertEqual(usage["random:15"]["recomputed_tokens"], chosen)
        # Some layers run on every row, which is work as well.
        self.assertGreater(usage["cacheblend:15"]["recomputed_tokens"], chosen)

    def test_the_order_of_documents_is_free(self):
        compiled = self.epic.metric("epic_cache_node_compiled_chunks_total")
        forth = self.epic.ask(["north", "south"], "What?", None, 16, "--afresh")
        back = self.epic.ask(["south", "north"], "What?", None, 16, "--afresh")
        again = self.epic.ask(["north", "south"])
        self.assertEqual(forth["usage"], back["usage"] | {"completion_tokens": forth["usage"]["completion_tokens"]})
        self.assertEqual(again["token_ids"], forth["token_ids"])
        self.assertEqual(self.epic.metric("epic_cache_node_compiled_chunks_total"), compiled)
        # Order matters to the model, and a linker that lost it would not notice.
        full = [self.epic.ask(order, linker="full", tokens=64) for order in (["north", "south"], ["south", "north"])]
        self.assertNotEqual(full[0]["token_ids"], full[1]["token_ids"])

    def test_a_document_may_come_twice_in_a_prompt(self):
        once = self.epic.ask(["north"])["usage"]
        twice = self.epic.ask(["north", "north"], "What?", None, 16, "--explain")
        self.assertEqual(twice["usage"]["cached_tokens"], 2 * once["cached_tokens"])
        self.assertEqual(twice["usage"]["prompt_tokens"], once["prompt_tokens"] + once["cached_tokens"])
        self.assertEqual([chunk["document_id"] for chunk in twice["plan"]], 2 * self.north["chunks"] * ["north"])

    def test_explain_shows_every_chunk_in_its_place(self):
        answer = self.epic.ask(["south", "north"], "What?", "legolink:16", 16, "--explain", "--afresh")
        plan = answer["plan"]
        expected = [("south", i) for i in range(self.south["chunks"])] + [
            ("north", i) for i in range(self.north["chunks"])
        ]
        self.assertEqual([(chunk["document_id"], chunk["chunk_index"]) for chunk in plan], expected)
        for before, after in zip(plan, plan[1:]):
            self.assertEqual(after["offset"], before["offset"] + before["tokens"])
        self.assertEqual(sum(chunk["tokens"] for chunk in plan), answer["usage"]["cached_tokens"])
        for chunk in plan:
            self.assertEqual(chunk["recomputed_tokens"], 16 if chunk["chunk_index"] == 0 else 0)
            self.assertNotIn(chunk["source"], ("", "not used"))
            self.assertTrue(chunk["reason"])
        table = self.epic.ok("ask", "What?", "--doc", "south", "--explain", "--max-tokens", 4)
        self.assertIn("recomputed", table.out)
        self.assertIn("south", table.out)
        self.assertIn("first token after", table.err)

    def test_without_documents_it_answers_as_well(self):
        usage = self.epic.ask([], "What?", None, 16, "--afresh")["usage"]
        self.assertEqual(usage["cached_tokens"], 0)
        self.assertEqual(usage["recomputed_tokens"], usage["prompt_tokens"])

    def test_a_repeated_question_runs_its_last_row(self):
        first = self.epic.ask(["south", "north"], "Asked twice?")
        again = self.epic.ask(["south", "north"], "Asked twice?")
        self.assertEqual(again["token_ids"], first["token_ids"])
        self.assertEqual(again["usage"]["recomputed_tokens"], 1)
        self.assertEqual(first["usage"]["selected_tokens"] + first["usage"]["reused_tokens"] - 1,
                         again["usage"]["reused_tokens"])
        rows_run = {"recomputed_tokens": 0, "selected_tokens": 0, "reused_tokens": 0}
        self.assertEqual(again["usage"] | rows_run, first["usage"] | rows_run)

    def test_sampling_follows_its_seed(self):
        def sample(seed):
            return self.epic.ask(["south"], "What?", None, 32, "--temperature", "1.5", "--seed", str(seed))["token_ids"]

        self.assertEqual(sample(7), sample(7))
        self.assertNotEqual(sample(7), sample(8))

    def test_an_answer_ends_before_its_stop_text(self):
        whole = self.epic.ask(["north"], tokens=32)["text"]
        self.assertGreater(len(whole), 8)
        stop = whole[4:8]
        answer = self.epic.ask(["north"], "What?", None, 32, "--stop", stop)
        self.assertEqual(answer["text"], whole[: whole.index(stop)])
        self.assertEqual(answer["finish_reason"], "stop")

    def test_compare(self):
        result = self.epic.json(
            "ask", "What?", "--doc", "north", "--doc", "south", "--compare", "--runs", 5, "--max-tokens", 8
        )
        self.assertEqual(result["runs"], 5)
        self.assertTrue(result["processor"])
        rows = {row["linker"]: row for row in result["linkers"]}
        self.assertEqual(list(rows), ["full", "cacheblend:15", "legolink:16", "legolink:2", "naive"])
        prompt = rows["full"]["prompt_tokens"]
        self.assertEqual({row["prompt_tokens"] for row in rows.values()}, {prompt})
        recomputed = {linker: row["recomputed_tokens"] for linker, row in rows.items()}
        self.assertEqual(recomputed["full"], prompt)
        self.assertLess(recomputed["naive"], recomputed["legolink:2"])
        self.assertLess(recomputed["legolink:2"], recomputed["legolink:16"])
        self.assertLess(recomputed["legolink:16"], recomputed["cacheblend:15"])
        self.assertLess(recomputed["cacheblend:15"], prompt)
        self.assertEqual(rows["full"]["agreement_with_full"], 1)
        for row in rows.values():
            self.assertGreater(row["ttft_us"], 0)
            self.assertTrue(0 <= row["agreement_with_full"] <= 1)
        table = self.epic.ok("ask", "What?", "--doc", "south", "--compare", "--max-tokens", 4).out
        for words in ("legolink:16", "cacheblend:15", "TTFT ms", "recomputed", "Median of 5 interleaved runs on"):
            self.assertIn(words, table)

    def test_status_and_models(self):
        state = self.epic.state()
        self.assertTrue(state["version"])
        self.assertEqual(sorted(member["role"] for member in state["members"]), ["cache node", "worker"])
        self.assertEqual({member["health"] for member in state["members"]}, {"serving"})
        node = self.epic.members("cache node")[0]
        self.assertGreaterEqual(node["blocks"], self.north["chunks"] + self.south["chunks"])
        self.assertTrue(0 < node["used_bytes"] <= node["capacity_bytes"])
        model = self.epic.json("models")[0]
        self.assertEqual(model["architecture"], "llama")
        self.assertEqual(model["context_length"], 8192)
        self.assertRegex(model["fingerprint"], "^[0-9a-f]{64}$")
        self.assertTrue(model["chat_template"])
        self.assertIn("serving", self.epic.ok("status").out)
        self.assertIn(model["fingerprint"][:12], self.epic.ok("models").out)

    def test_counters_are_there_to_be_scraped(self):
        self.epic.ask(["north"])
        for name in (
            "epic_router_requests_total",
            "epic_worker_requests_total",
            "epic_cache_node_compiled_chunks_total",
        ):
            self.assertGreater(self.epic.metric(name), 0, name)
        self.assertGreaterEqual(self.epic.metric('epic_router_document_calls_total{method="create",code="OK"}'), 2)
        self.assertTrue(
            all(name.startswith("epic_") or name.startswith("exposer_") for name in scrape(self.epic.metrics_address))
        )


class Documents(EpicTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.process, cls.epic = cls.start_up()

    def test_register_tells_people_and_programs(self):
        table = self.epic.ok("register", self.write("minutes.md", prose("minutes", 60)))
        self.assertRegex(table.out, r"^registered minutes: ready, \d+ tokens in 1 chunks?\n$")
        again = self.epic.ok("register", self.write("minutes.md", prose("minutes", 60)))
        self.assertRegex(again.out, "^already registered minutes: ready")
        files = [self.write(f"{name}.txt", prose(name, 40)) for name in ("first", "second")]
        both = self.epic.json("register", *files, "--label", "kind=report", "--label", "year=1987")
        self.assertEqual([document["id"] for document in both], ["first", "second"])
        for document in both:
            self.assertEqual(document["labels"], {"kind": "report", "year": "1987"})
            self.assertEqual(document["state"], "ready")
            self.assertTrue(document["created"])
            self.assertGreater(document["tokens"], 0)
            self.assertGreater(document["created_unix_ms"], 0)

    def test_register_without_waiting_is_compiled_behind_our_back(self):
        self.epic.ok("register", self.write("later.txt", prose("later", 700)), "--no-wait")
        self.assertEqual(self.epic.wait_ready("later")["compiled_chunks"], self.epic.document("later")["chunks"])

    def test_pages(self):
        ids = [f"page.{i:02}" for i in range(7)]
        for document_id in ids:
            self.epic.register(
                self.write("page.txt", prose(document_id, 12)), "--id", document_id, "--label", "set=pages"
            )
        seen, token, pages = [], "", 0
        while True:
            options = ["--page-token", token] if token else []
            page = self.epic.json("documents", "list", "--page-size", 3, *options)
            self.assertLessEqual(len(page["documents"]), 3)
            seen += [document["id"] for document in page["documents"]]
            pages += 1
            token = page["next_page_token"]
            if not token:
                break
        self.assertEqual(seen, sorted(seen))
        self.assertEqual([document_id for document_id in seen if document_id.startswith("page.")], ids)
        self.assertEqual(pages, (len(seen) + 2) // 3)
        self.assertEqual(sorted(self.epic.documents()), seen)
        table = self.epic.ok("documents", "list", "--page-size", 2).out
        self.assertIn("More: --page-token ", table)

    def test_text_comes_back_as_it_went_in(self):
        text = "Grüße — 数字 1234 🚢\r\n\ttabs, a trailing blank \n\n"
        self.epic.register(self.write("unicode.txt", text))
        self.assertEqual(self.epic.document("unicode", "--text")["text"], text)
        self.assertNotIn("text", self.epic.document("unicode"))

    def test_delete(self):
        self.epic.register(self.write("gone.txt", prose("gone", 30)))
        self.assertEqual(self.epic.json("documents", "delete", "gone"), [{"id": "gone", "deleted": True}])
        self.assertNotIn("gone", self.epic.documents())
        self.assert_sentence(self.epic.run("documents", "get", "gone"), 'document "gone" does not exist')
        self.assert_sentence(self.epic.run("documents", "delete", "gone"), 'document "gone" does not exist')
        self.assert_sentence(self.epic.run("ask", "What?", "--doc", "gone"), 'document "gone" does not exist')
        # The id is free again, for another text too.
        self.epic.register(self.write("gone.txt", prose("another", 30)))

    def test_a_document_ends_with_its_time(self):
        self.epic.ok("register", self.write("brief.txt", prose("brief", 30)), "--ttl-seconds", 1, "--no-wait")
        wait_until(lambda: "brief" not in self.epic.documents(), "the document is gone after its time")

    def test_tenants_do_not_meet(self):
        path = self.write("secret.txt", prose("secret", 30))
        self.epic.ok("register", path, "--tenant", "acme")
        self.assertNotIn("secret", self.epic.documents())
        self.assert_sentence(self.epic.run("documents", "get", "secret"), 'document "secret" does not exist')
        self.assertEqual(self.epic.document("secret", "--tenant", "acme")["id"], "secret")


class StopAndStart(EpicTest):
    GRACE_SECONDS = 10

    def test_documents_survive_and_another_model_compiles_them_anew(self):
        data = self.folder / "data"
        process, epic = self.start_up("first", data)
        epic.register(self.write("kept.txt", prose("kept", 500)))
        epic.ok("register", self.write("waiting.txt", prose("waiting", 900)), "--no-wait")
        before = epic.documents()
        first = epic.ask(["kept"])["token_ids"]
        fingerprint = epic.json("models")[0]["fingerprint"]
        begun = time.monotonic()
        self.assertEqual(process.terminate(), 0, process.log)
        self.assertLess(time.monotonic() - begun, self.GRACE_SECONDS + 5)

        # The same model: everything is there, is compiled without being asked for, and answers as before.
        process, epic = self.start_up("second", data)
        for document_id, document in before.items():
            ready = epic.wait_ready(document_id)
            for field in ("tokens", "chunks", "text_bytes", "created_unix_ms", "labels"):
                self.assertEqual(ready[field], document[field], (document_id, field))
        self.assertEqual(epic.ask(["kept"])["token_ids"], first)
        self.assertEqual(process.terminate(), 0, process.log)

        # Another model: the documents are kept, nothing is compiled until somebody asks for it.
        process, epic = self.start_up("third", data, OTHER_MODEL)
        self.assertNotEqual(epic.json("models")[0]["fingerprint"], fingerprint)
        self.assertEqual({document["state"] for document in epic.documents().values()}, {"registered"})
        self.assertEqual(epic.metric("epic_cache_node_compiled_chunks_total"), 0)
        answer = epic.ask(["kept"])
        self.assertEqual(answer["usage"]["cached_tokens"], epic.document("kept")["tokens"])
        kept = epic.wait_ready("kept")
        self.assertEqual(epic.metric("epic_cache_node_compiled_chunks_total"), kept["chunks"])
        self.assertEqual(epic.document("waiting")["state"], "registered")
        # Registering the same text again asks for it too.
        self.assertFalse(epic.register(self.folder / "waiting.txt")["created"])
        self.assertEqual(epic.document("waiting")["state"], "ready")
        self.assertEqual(process.terminate(), 0, process.log)

        # And back.
        process, epic = self.start_up("fourth", data)
        self.assertEqual(epic.wait_ready("kept")["tokens"], before["kept"]["tokens"])
        self.assertEqual(epic.ask(["kept"])["token_ids"], first)
        self.assertEqual(process.terminate(), 0, process.log)

    def test_it_stops_in_the_middle_of_work(self):
        process, epic = self.start_up("busy", self.folder / "busy-data", MODEL, "--shutdown-grace", "1s")
        for i in range(3):
            epic.ok("register", self.write(f"busy{i}.txt", prose(f"busy{i}", 3000)), "--no-wait")
        self.assertEqual(process.terminate(), 0, process.log)
        _, epic = self.start_up("idle", self.folder / "busy-data")
        self.assertEqual(sorted(epic.documents()), ["busy0", "busy1", "busy2"])

    def test_interrupt_ends_it_as_well(self):
        process, _ = self.start_up("interrupted")
        process.signal(signal.SIGINT)
        self.assertEqual(process.wait(), 0, process.log)


class ShadowChecks(EpicTest):
    """An idle worker asks full recompute for the first tokens of its linked answers again."""

    def figures(self, epic):
        """{linker: its figures} of the only worker."""
        (worker,) = epic.members("worker")
        return {figures["linker"]: figures for figures in worker["shadow"]}

    def test_status_shows_what_the_answers_themselves_show(self):
        _, epic = self.start_up("shadow", None, MODEL, "--shadow-share", "1")
        for name in ("north", "south"):
            epic.register(self.write(f"{name}.txt", prose(name, 300)))
        self.assertEqual(self.figures(epic), {})
        self.assertNotIn("shadow", epic.ok("status").out)
        questions = [f"What of {word}?" for word in prose("questions", 12).split()]
        # Documents of several chunks are compiled as a whole where nobody says otherwise.
        checked = ("naive@document", "random:100@document")
        agreed = 0
        for done, question in enumerate(questions, 1):
            answers = {}
            for linker in ("full", "naive", "random:100"):
                answers[linker] = epic.ask(["north", "south"], question, linker, 1)["token_ids"]  # none: its end
            agreed += answers["naive"] == answers["full"]
            wait_until(
                lambda: [self.figures(epic).get(linker, {}).get("checks") for linker in checked] == [done, done],
                f"both answers to question {done} are checked",
            )
        figures = self.figures(epic)
        self.assertEqual(set(figures), set(checked))
        # All rows chosen is full recompute.
        self.assertEqual(figures["random:100@document"]["first_token_agreement"], 1)
        self.assertLess(figures["random:100@document"]["mean_kl"], 1e-4)
        self.assertEqual(figures["random:100@document"]["problem"], "")
        naive = figures["naive@document"]
        self.assertAlmostEqual(naive["first_token_agreement"], agreed / len(questions))
        self.assertGreater(naive["mean_kl"], 1e-4)
        falls_short = naive["first_token_agreement"] < 0.9 or naive["mean_kl"] > 0.1
        self.assertEqual(bool(naive["problem"]), falls_short, naive)
        table = epic.ok("status").out
        for part in ("shadow checks", "random:100@document", "100.0 %", naive["problem"]):
            self.assertIn(part, table)
        self.assertEqual(epic.metric("epic_worker_shadow_checks_total"), 2 * len(questions))
        self.assertEqual(epic.metric('epic_worker_shadow_checks_total{linker="random",result="agree"}'), len(questions))
        self.assertEqual(epic.metric("epic_worker_shadow_lost_total"), 0)
        epic.wait_idle()


class RealModel(EpicTest):
    """The default model, where it was fetched: a right answer shows that the document was read."""

    @unittest.skipUnless(REAL_MODEL, "EPIC_MODEL names no model: scripts/fetch_model.sh fetches it")
    def test_facts_of_documents_are_found(self):
        _, epic = self.start_up("real", None, pathlib.Path(REAL_MODEL))
        texts = {
            "ferry": "The ferry to Skarn island leaves from pier nine. The captain of the ferry is called Oduya.\n",
            "canteen": "The canteen of the museum serves soup on Mondays. The cook is called Marchetti.\n",
            "library": "The library closes at six. The librarian of the library is called Brekke.\n",
        }
        for name, text in texts.items():
            epic.register(self.write(f"{name}.txt", text))
        question = "From which pier does the ferry leave?"
        orders = [["ferry"], ["ferry", "canteen"], ["library", "canteen", "ferry"], ["ferry", "library", "canteen"]]
        for linker in ("full", "legolink:16"):
            answers = [epic.ask(order, question, linker, 16)["text"] for order in orders]
            # A model of this size may miss one; it guesses none.
            self.assertGreaterEqual(sum("nine" in answer.lower() for answer in answers), 3, f"{linker}: {answers}")
        self.assertNotIn("nine", epic.ask([], question, "full", 16)["text"].lower())


class CommandLine(EpicTest):
    def test_without_a_server_it_says_so(self):
        address = free_address()
        for arguments in (["status"], ["documents", "list"], ["ask", "What?"], ["models"]):
            result = run(BIN / "epic", *arguments, "--server", address, "--timeout-ms", 2000)
            self.assert_sentence(result, address, "is EPIC running?", "epic up")

    def test_wrong_words_are_usage(self):
        for arguments in (
            ["frobnicate"],
            ["ask"],
            ["register"],
            ["status", "--format", "xml"],
            ["ask", "x", "--runs", "4"],
        ):
            self.assert_sentence(run(BIN / "epic", *arguments), "epic --help", code=2)

    def test_the_configuration_files_of_the_papers_models_are_read(self):
        files = sorted((SOURCE / "quality" / "models").glob("*.yaml"))
        self.assertEqual(len(files), 3)
        for path in files:
            result = run(BIN / "epic", "up", "--config", path, "--print-config")
            self.assertEqual(result.code, 0, str(result))
            self.assertIn('model: "models/', result.out)
            self.assertIn(path.name, result.out)  # says where a value came from

    def test_models_are_inspected_without_a_server(self):
        result = run(BIN / "epic", "models", "inspect", MODEL)
        self.assertEqual(result.code, 0, str(result))
        for part in ("GGUF version 3", "llama", "smollm", "a token in bf16", "runs           yes"):
            self.assertIn(part, result.out)
        refused = self.write("text.gguf", "no model")
        result = run(BIN / "epic", "models", "inspect", refused)
        self.assert_sentence(result, refused, "expected a GGUF file")
        self.assertRegex(result.out, r"runs +no")
        report = run(BIN / "epic", "models", "inspect", refused, "--format", "json")
        self.assertEqual((report.code, report.json["runs"]), (1, False))
        self.assert_sentence(run(BIN / "epic", "models", "inspect", self.folder / "absent.gguf"), "no such file")

    def test_synthetic_models_are_made_and_marked(self):
        folder = self.folder / "synthetic"
        arguments = ["models", "synth", "--shape", "smollm2-135m", "--layers", 1, "--output", folder]
        result = run(BIN / "epic", *arguments)
        self.assertEqual(result.code, 0, str(result))
        self.assertIn("random weights", result.out)
        self.assertIn("random weights", run(BIN / "epic", "models", "inspect", folder).out)
        self.assert_sentence(run(BIN / "epic", *arguments), folder, "not empty")
        for shape, layers, part in (("llama-3.1-70b", 1, "shape"), ("smollm2-135m", 99, "expected 1 to 30")):
            result = run(BIN / "epic", "models", "synth", "--shape", shape, "--layers", layers, "--output", folder)
            self.assert_sentence(result, part)

    def test_help_and_version(self):
        self.assertRegex(run(BIN / "epic", "--version").out, r"\d+\.\d+\.\d+")
        text = run(BIN / "epic", "--help").out
        for command in ("up", "register", "ask", "documents", "status", "models"):
            self.assertIn(command, text)
        self.assertIn("--data-dir", run(BIN / "epic", "up", "--help").out)


if __name__ == "__main__":
    unittest.main(verbosity=2)
