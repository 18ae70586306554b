BEGIN TRANSACTION;
CREATE TABLE conversations (
                    id TEXT PRIMARY KEY,
                    metadata_json TEXT NOT NULL,
                    seed_items_json TEXT,
                    latest_response_id TEXT,
                    created_at INTEGER NOT NULL,
                    updated_at INTEGER NOT NULL
                );
INSERT INTO "conversations" VALUES('conv_9180ff881f304b65b72f247d181f2470','{"topic": "greeting"}','[{"type": "message", "role": "user", "content": "Answer in one sentence."}, {"role": "user", "content": [{"type": "input_file", "file_id": "file_e2c7017daef34e319b148618b3790bb9"}, {"type": "input_text", "text": "What does it say?"}]}, {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "The file says hello."}]}]','resp_1',1796037831,1796037831);
INSERT INTO "conversations" VALUES('conv_23bb582baccb4c39afd511109c5d5700','{}','[]',NULL,1796037831,1796037831);
CREATE TABLE files (
                    id TEXT PRIMARY KEY,
                    filename TEXT NOT NULL,
                    purpose TEXT NOT NULL,
                    content_type TEXT NOT NULL,
                    bytes INTEGER NOT NULL,
                    sha256 TEXT NOT NULL,
                    created_at INTEGER NOT NULL,
                    storage_path TEXT NOT NULL,
                    deleted_at INTEGER
                );
INSERT INTO "files" VALUES('file_e2c7017daef34e319b148618b3790bb9','hello.txt','user_data','text/plain',20,'df4bdd62a7f064ae7b1032081fd226e99d70436663e970870e6bb37e8295e8a3',1796037831,'{home}/.airelays/uploads/file_e2c7017daef34e319b148618b3790bb9',NULL);
INSERT INTO "files" VALUES('file_4b84136af2a24f08bb436426f3257510','nächste Woche.csv','user_data','text/csv',19,'482327c63df05cdb6191f1a8aa60b602623a610d684ab7a26f7fde5b24adaf43',1796037831,'{home}/.airelays/uploads/file_4b84136af2a24f08bb436426f3257510',NULL);
INSERT INTO "files" VALUES('file_5ac562a65bde4144bf327440a1b03aea','gone.txt','user_data','text/plain',8,'ee31ef227442936872744b50d3297385c08b40ffc7baeaf34a39e6d81d6cd9ee',1796037831,'{home}/.airelays/uploads/file_5ac562a65bde4144bf327440a1b03aea',1796037831);
COMMIT;
